#include "packed_linear.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernel.h"

namespace crisp {
namespace {

// For each panel of int8 weights, whether 16 bits hold what any inputs add up to over a step in the
// lanes of kernel_dot.h: the first and second two bytes of each group of four.
std::vector<uint8_t> deep_panels(const int8_t* weights, int64_t inputs, int64_t outputs,
                                 int64_t columns) {
  std::vector<uint8_t> deep(static_cast<size_t>(outputs / columns), 1);
  for (int64_t panel = 0; panel < outputs / columns; ++panel) {
    const int8_t* const own = weights + panel * inputs * columns;
    for (int64_t step = 0; step < inputs; step += kStep) {
      for (int64_t pair = 0; pair < 2 * columns; ++pair) {
        int64_t above = 0;
        int64_t below = 0;
        for (int64_t byte = 0; byte < kStep / 2; ++byte) {
          const int64_t group = step / 4 + byte / 2;
          const int8_t weight = own[group * 4 * columns + 2 * pair + byte % 2];
          (weight > 0 ? above : below) += weight;
        }
        const int64_t most = kActivationLevels * std::max(above, -below);
        if (most > std::numeric_limits<int16_t>::max()) deep[static_cast<size_t>(panel)] = 0;
      }
    }
  }
  return deep;
}

}  // namespace

void check_weight_sizes(int64_t inputs, int64_t outputs) {
  if (inputs < 1 || outputs < 1) {
    throw std::invalid_argument("weight must have inputs and outputs, got [" +
                                std::to_string(inputs) + ", " + std::to_string(outputs) + "]");
  }
}

// Lays out what `weights_` has the shape of.
template <typename Weight>
void PackedLinear::pack(const RowKernel& kernel, const Weight* weight, const float* scale,
                        const float* bias) {
  constexpr int64_t kGroup = sizeof(float) / sizeof(Weight);  // inputs that lie side by side
  constexpr bool kQuantised = kGroup != 1;
  const int64_t columns = kernel.columns;
  const int64_t inputs = kQuantised ? round_up(weights_.inputs, kStep) : weights_.inputs;
  const int64_t outputs = round_up(weights_.outputs, columns);
  panel_columns_ = columns;
  columns_.assign(static_cast<size_t>((kQuantised ? 3 : 2) * outputs), 0.0f);
  float* const scales = columns_.data();
  float* const biases = scales + outputs;
  float* const sums = kQuantised ? biases + outputs : nullptr;
  std::copy_n(scale, weights_.outputs, scales);
  std::copy_n(bias, weights_.outputs, biases);
  bytes_ = static_cast<size_t>(inputs * outputs) * sizeof(Weight);
  panels_ = allocate(static_cast<int64_t>(bytes_));
  std::memset(panels_.get(), 0, bytes_);
  auto* const panels = static_cast<Weight*>(panels_.get());
  for (int64_t i = 0; i < weights_.inputs; ++i) {
    for (int64_t j = 0; j < weights_.outputs; ++j) {
      const Weight value = weight[i * weights_.outputs + j];
      const int64_t panel = j / columns * columns * inputs;
      panels[panel + i / kGroup * kGroup * columns + j % columns * kGroup + i % kGroup] = value;
      if (kQuantised) sums[j] += static_cast<float>(value);
    }
  }
  if (kQuantised) {
    deep_ = deep_panels(reinterpret_cast<const int8_t*>(panels), inputs, outputs, columns);
  }
  weights_.panels = panels;
  weights_.quantised = kQuantised;
  weights_.deep = deep_.data();
  weights_.scale = scales;
  weights_.bias = biases;
  weights_.weight_sum = sums;
}

PackedLinear::PackedLinear(const RowKernel& kernel, const float* weight, const float* scale,
                           const float* bias, int64_t inputs, int64_t outputs)
    : panels_(nullptr, &free) {
  set_shape(inputs, outputs);
  pack(kernel, weight, scale, bias);
}

PackedLinear::PackedLinear(const RowKernel& kernel, const int8_t* weight, const float* scale,
                           const float* bias, int64_t inputs, int64_t outputs)
    : panels_(nullptr, &free) {
  set_shape(inputs, outputs);
  const auto allowed = [](int8_t value) {
    return value >= -kWeightLevels && value <= kWeightLevels;
  };
  const int8_t* const end = weight + inputs * outputs;
  const int8_t* const found = std::find_if_not(weight, end, allowed);
  if (found != end) {
    throw std::invalid_argument(
        "int8 weights must lie in [-64, 64], so that products fit into 16 "
        "bits, got " +
        std::to_string(*found));
  }
  pack(kernel, weight, scale, bias);
}

void PackedLinear::set_shape(int64_t inputs, int64_t outputs) {
  check_weight_sizes(inputs, outputs);
  weights_.inputs = inputs;
  weights_.outputs = outputs;
}

bool PackedLinear::operator==(const PackedLinear& other) const {
  return weights_.inputs == other.weights_.inputs && weights_.outputs == other.weights_.outputs &&
         weights_.quantised == other.weights_.quantised && bytes_ == other.bytes_ &&
         panel_columns_ == other.panel_columns_ && columns_ == other.columns_ &&
         std::memcmp(panels_.get(), other.panels_.get(), bytes_) == 0;
}

size_t PackedLinear::hash() const {
  const std::hash<std::string_view> hash;
  return hash({static_cast<const char*>(panels_.get()), bytes_}) ^
         hash({reinterpret_cast<const char*>(columns_.data()), columns_.size() * sizeof(float)});
}

}  // namespace crisp
