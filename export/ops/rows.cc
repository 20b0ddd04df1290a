// Lays weights out for the kernel, cuts the rows into blocks and hands those to the threads.
#include "rows.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

namespace crisp {
namespace {

constexpr int64_t kGoodRows = 16;   // of a task: few enough that threads end together
constexpr int64_t kFewestRows = 6;  // of a task: a full tile, since each reads all the weights

Aligned allocate(int64_t bytes) {
  void* memory =
      std::aligned_alloc(64, static_cast<size_t>(round_up(std::max<int64_t>(bytes, 1), 64)));
  if (memory == nullptr) throw std::bad_alloc();
  return {memory, &free};
}

// Memory that a thread keeps from one task to the next: it is small and always of like size.
// Null where there is none to be had.
std::byte* thread_memory(int64_t bytes) {
  thread_local Aligned memory(nullptr, &free);
  thread_local int64_t size = 0;
  if (bytes > size) {
    memory.reset(std::aligned_alloc(64, static_cast<size_t>(round_up(bytes, 64))));
    size = memory == nullptr ? 0 : bytes;
  }
  return static_cast<std::byte*>(memory.get());
}

struct Widths {
  int64_t input;  // the widest of all layers
  int64_t output;
  int64_t hidden;
};

int64_t bytes_of(const Widths& widths) {
  return kBlockRows * (round_up(widths.input, 64) + 4 * (round_up(widths.output, kMaxColumns) +
                                                         round_up(widths.hidden, 16) + 2));
}

RowScratch scratch_in(std::byte* memory, const Widths& widths) {
  RowScratch scratch;
  scratch.quantised = reinterpret_cast<uint8_t*>(memory);
  memory += kBlockRows * round_up(widths.input, 64);
  scratch.wide = reinterpret_cast<float*>(memory);
  scratch.narrow = scratch.wide + kBlockRows * round_up(widths.output, kMaxColumns);
  scratch.scale = scratch.narrow + kBlockRows * round_up(widths.hidden, 16);
  scratch.zero_point = scratch.scale + kBlockRows;
  return scratch;
}

// Calls body(first row, number of rows, scratch) for blocks of at most kBlockRows that are even
// shares for the processors there are. Which they are changes no result.
template <typename Body>
void for_blocks(int64_t rows, const Widths& widths, const ParallelFor& parallel_for,
                const Body& body) {
  if (rows == 0) return;
  static const int64_t processors = std::max(1u, std::thread::hardware_concurrency());
  const int64_t turns = (rows + processors * kGoodRows - 1) / (processors * kGoodRows);
  const int64_t shares = processors * turns;
  const int64_t size = std::max(std::min(kFewestRows, rows), (rows + shares - 1) / shares);
  const int64_t blocks = (rows + size - 1) / size;
  std::atomic<bool> out_of_memory{false};
  const auto task = [&](size_t block) {
    const int64_t begin = static_cast<int64_t>(block) * size;
    std::byte* memory = thread_memory(bytes_of(widths));
    if (memory == nullptr) {
      out_of_memory = true;
      return;
    }
    body(begin, std::min(size, rows - begin), scratch_in(memory, widths));
  };
  if (blocks == 1) {
    task(0);
  } else {
    parallel_for(static_cast<size_t>(blocks), task);
  }
  if (out_of_memory) throw std::bad_alloc();
}

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

template <typename Weight>
void PackedLinear::pack(const RowKernel& kernel, const Weight* weight, const float* scale,
                        const float* bias) {
  constexpr int64_t kGroup = sizeof(float) / sizeof(Weight);  // inputs that lie side by side
  const int64_t columns = kernel.columns;
  const int64_t inputs = kGroup == 1 ? weights_.inputs : round_up(weights_.inputs, kStep);
  const int64_t outputs = round_up(weights_.outputs, columns);
  panel_columns_ = columns;
  columns_.assign(static_cast<size_t>(3 * round_up(outputs, kMaxColumns)), 0.0f);
  float* const scales = columns_.data();
  float* const biases = scales + outputs;
  float* const sums = biases + outputs;
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
      sums[j] += static_cast<float>(value);
    }
  }
  if (kGroup != 1)
    deep_ = deep_panels(reinterpret_cast<const int8_t*>(panels), inputs, outputs, columns);
  weights_.panels = panels;
  weights_.quantised = kGroup != 1;
  weights_.deep = deep_.data();
  weights_.scale = scales;
  weights_.bias = biases;
  weights_.weight_sum = sums;
}

PackedLinear::PackedLinear(const RowKernel& kernel, const float* weight, const float* scale,
                           const float* bias, int64_t inputs, int64_t outputs)
    : panels_(nullptr, &free) {
  weights_.inputs = inputs;
  weights_.outputs = outputs;
  pack(kernel, weight, scale, bias);
}

PackedLinear::PackedLinear(const RowKernel& kernel, const int8_t* weight, const float* scale,
                           const float* bias, int64_t inputs, int64_t outputs)
    : panels_(nullptr, &free) {
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
  weights_.inputs = inputs;
  weights_.outputs = outputs;
  pack(kernel, weight, scale, bias);
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

void linear(const RowKernel& kernel, const PackedLinear& layer, const float* x, int64_t rows,
            float* y, const ParallelFor& parallel_for) {
  const LinearWeights& weights = layer.weights();
  for_blocks(rows, {weights.inputs, 0, 0}, parallel_for,
             [&](int64_t begin, int64_t count, const RowScratch& scratch) {
               kernel.linear(weights, x + begin * weights.inputs, weights.inputs, count,
                             Activation::kNone, y + begin * weights.outputs, weights.outputs,
                             scratch);
             });
}

void post_attention(const RowKernel& kernel, const PostAttentionWeights& weights,
                    const float* context, const float* hidden, int64_t rows, float* output,
                    float* qkv, const ParallelFor& parallel_for) {
  const LinearWeights& out = weights.out->weights();
  const LinearWeights& inner = weights.inner->weights();
  const LinearWeights& outer = weights.outer->weights();
  const int64_t width = out.outputs;
  const int64_t wide = inner.outputs;
  const NormWeights attended = weights.attended.weights();
  const NormWeights last = weights.output.weights();
  const auto block = [&](int64_t begin, int64_t count, const RowScratch& scratch) {
    const int64_t at = begin * width;
    float* const sum = output + at;
    kernel.linear(out, context + begin * out.inputs, out.inputs, count, Activation::kNone,
                  scratch.narrow, width, scratch);
    kernel.add_and_norm(scratch.narrow, hidden + at, count, width, attended, sum);
    kernel.linear(inner, sum, width, count, Activation::kGelu, scratch.wide, wide, scratch);
    kernel.linear(outer, scratch.wide, wide, count, Activation::kNone, scratch.narrow, width,
                  scratch);
    kernel.add_and_norm(scratch.narrow, sum, count, width, last, sum);
    if (weights.qkv != nullptr) {
      const LinearWeights& next = weights.qkv->weights();
      kernel.linear(next, sum, width, count, Activation::kNone, qkv + begin * next.outputs,
                    next.outputs, scratch);
    }
  };
  for_blocks(rows, {std::max({out.inputs, width, wide}), wide, width}, parallel_for, block);
}

void embed(const RowKernel& kernel, const EmbeddingTable& words, const EmbeddingTable& positions,
           const LayerNorm& norm, const int64_t* input_ids, const int32_t* cu_seqlens,
           int64_t batch, float* hidden, const ParallelFor& parallel_for) {
  const int64_t tokens = cu_seqlens[batch];
  const int64_t width = static_cast<int64_t>(norm.gamma.size());
  std::vector<int64_t> position(static_cast<size_t>(tokens));
  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    const int64_t length = cu_seqlens[sequence + 1] - cu_seqlens[sequence];
    if (length > positions.count) {
      throw std::invalid_argument("a sequence has " + std::to_string(length) +
                                  " tokens, and there are positions for " +
                                  std::to_string(positions.count));
    }
    for (int64_t i = 0; i < length; ++i) position[cu_seqlens[sequence] + i] = i;
  }
  for (int64_t token = 0; token < tokens; ++token) {
    if (input_ids[token] < 0 || input_ids[token] >= words.count) {
      throw std::invalid_argument("input_ids must lie in [0, " + std::to_string(words.count) +
                                  "), got " + std::to_string(input_ids[token]) + " at index " +
                                  std::to_string(token));
    }
  }
  const auto row_of = [width](const EmbeddingTable& table, int64_t row) -> EmbeddingRow {
    return {table.floats == nullptr ? nullptr : table.floats + row * width,
            table.bytes == nullptr ? nullptr : table.bytes + row * width, table.scale[row]};
  };
  const auto block = [&](int64_t begin, int64_t count, const RowScratch&) {
    for (int64_t token = begin; token < begin + count; ++token) {
      kernel.embed(row_of(words, input_ids[token]), row_of(positions, position[token]), width,
                   norm.weights(), hidden + token * width);
    }
  };
  for_blocks(tokens, {}, parallel_for, block);
}

}  // namespace crisp
