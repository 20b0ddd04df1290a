#include "layers.h"

#include <algorithm>
#include <cmath>

#include "doctest/doctest.h"
#include "isa.h"

namespace crisp {

// row_kernel.cc compiled for vectors of 64 bytes without any instruction set: the layout of the
// AVX-512 kernels, on any processor.
namespace emulated {
extern const RowKernel kRowKernel;
}

namespace {

// What rows.h says of quantised rows, in doubles but for the numbers that decide the rounding.
std::vector<double> quantised_row(const float* x, int64_t width) {
  float lowest = 0;
  float highest = 0;
  for (int64_t i = 0; i < width; ++i) {
    lowest = std::min(lowest, x[i]);
    highest = std::max(highest, x[i]);
  }
  float step = (highest - lowest) / 127;
  if (!(step > kSmallestStep)) step = 1;
  const double zero = std::nearbyint(-static_cast<double>(lowest) * (1.0f / step));
  std::vector<double> values;
  for (int64_t i = 0; i < width; ++i) {
    const double whole = std::nearbyint(static_cast<double>(x[i]) * (1.0f / step)) + zero;
    values.push_back((std::min(whole, 127.0) - zero) * step);
  }
  return values;
}

}  // namespace

std::vector<NamedKernel> row_kernels() {
  std::vector<NamedKernel> found = {{"emulated", &emulated::kRowKernel}};
  for (const Isa isa : kEveryIsa) {
    if (is_supported(isa)) found.push_back({name_of(isa), &row_kernel_for(isa)});
  }
  return found;
}

extern const ParallelFor kOneAfterTheOther = [](size_t tasks,
                                                const std::function<void(size_t)>& task) {
  for (size_t i = tasks; i-- > 0;) task(i);
};

std::unique_ptr<PackedLinear> Layer::packed(const RowKernel& kernel, bool quantised) const {
  if (quantised) {
    return std::make_unique<PackedLinear>(kernel, bytes.data(), scale.data(), bias.data(), inputs,
                                          outputs);
  }
  return std::make_unique<PackedLinear>(kernel, floats.data(), scale.data(), bias.data(), inputs,
                                        outputs);
}

Layer random_layer(std::mt19937& random, int64_t inputs, int64_t outputs) {
  std::uniform_int_distribution<int> weight(-64, 64);
  std::normal_distribution<float> normal;
  Layer layer{inputs, outputs, {}, {}, FloatRows(outputs), FloatRows(outputs)};
  for (int64_t i = 0; i < inputs * outputs; ++i) {
    layer.bytes.push_back(static_cast<int8_t>(weight(random)));
    layer.floats.push_back(layer.bytes.back());
  }
  const float size = 1.0f / (37.0f * std::sqrt(static_cast<float>(inputs)));
  for (float& value : layer.scale) value = size * (1.5f + 0.1f * normal(random));
  for (float& value : layer.bias) value = 0.1f * normal(random);
  return layer;
}

PostAttentionWeights PostAttentionLayers::packed(const RowKernel& kernel, bool quantised) const {
  PostAttentionWeights weights;
  weights.out = out.packed(kernel, quantised);
  weights.inner = inner.packed(kernel, quantised);
  weights.outer = outer.packed(kernel, quantised);
  weights.qkv = qkv.packed(kernel, quantised);
  weights.attended = norm;
  weights.output = norm;
  return weights;
}

PostAttentionLayers random_post_attention(std::mt19937& random, int64_t hidden, int64_t inner) {
  return {random_layer(random, hidden, hidden),
          random_layer(random, hidden, inner),
          random_layer(random, inner, hidden),
          random_layer(random, hidden, 3 * hidden),
          {random_rows(random, hidden), random_rows(random, hidden), 1e-12f}};
}

FloatRows random_rows(std::mt19937& random, int64_t count) {
  std::normal_distribution<float> normal;
  FloatRows values(count);
  for (float& value : values) value = normal(random);
  return values;
}

double error_function_gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

FloatRows plain_linear(const Layer& layer, const FloatRows& x, int64_t rows, bool quantised) {
  FloatRows y;
  for (int64_t row = 0; row < rows; ++row) {
    const float* const from = x.data() + row * layer.inputs;
    std::vector<double> values(from, from + layer.inputs);
    if (quantised) values = quantised_row(from, layer.inputs);
    for (int64_t j = 0; j < layer.outputs; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < layer.inputs; ++i) {
        sum += values[i] * layer.bytes[i * layer.outputs + j];
      }
      y.push_back(static_cast<float>(sum * layer.scale[j] + layer.bias[j]));
    }
  }
  return y;
}

FloatRows plain_norm(const FloatRows& x, const FloatRows& y, int64_t width, const LayerNorm& norm) {
  FloatRows result;
  for (size_t begin = 0; begin < x.size(); begin += width) {
    double mean = 0;
    double variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += (x[begin + i] + y[begin + i]) / double(width);
    for (int64_t i = 0; i < width; ++i) {
      variance += std::pow(x[begin + i] + y[begin + i] - mean, 2) / double(width);
    }
    for (int64_t i = 0; i < width; ++i) {
      const double normal =
          (x[begin + i] + y[begin + i] - mean) / std::sqrt(variance + norm.epsilon);
      result.push_back(static_cast<float>(normal * norm.gamma[i] + norm.beta[i]));
    }
  }
  return result;
}

double largest_difference(const FloatRows& a, const FloatRows& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

FloatRows run_linear(const RowKernel& kernel, const Layer& layer, const FloatRows& x, int64_t rows,
                     bool quantised) {
  // One more than there are, which must stay as it is.
  FloatRows y(rows * layer.outputs + 1, -7.0f);
  linear(kernel, *layer.packed(kernel, quantised), x.data(), rows, y.data(), kOneAfterTheOther);
  CHECK(y.back() == -7.0f);
  y.pop_back();
  return y;
}

}  // namespace crisp
