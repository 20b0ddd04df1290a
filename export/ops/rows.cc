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

#include "team.h"

namespace crisp {
namespace {

constexpr int64_t kMostInTeam = 4;           // threads: more would wait for each other too often
constexpr int64_t kFewestWeights = 1 << 18;  // to share: some ten microseconds of reading them
constexpr int64_t kFewestRows = 6;  // of a task: a full tile, since each reads all the weights

int64_t processors() {
  static const int64_t count = std::max(1u, std::thread::hardware_concurrency());
  return count;
}

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
void for_blocks(const RowKernel& kernel, int64_t rows, const Widths& widths,
                const ParallelFor& parallel_for, const Body& body) {
  if (rows == 0) return;
  const int64_t in_a_turn = processors() * kernel.task_rows;
  const int64_t turns = (rows + in_a_turn - 1) / in_a_turn;
  const int64_t shares = processors() * turns;
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

// The same where all threads may share few rows, which they do weight by weight: each reads a part
// of the weights, and these are what takes the time. Calls body(member, first row, number of rows,
// scratch), where member is of a Team or alone; `weights` is how many there are.
template <typename Body>
void for_blocks_in_steps(const RowKernel& kernel, int64_t rows, int64_t weights,
                         const Widths& widths, const ParallelFor& parallel_for, const Body& body) {
  const int64_t threads = std::min(processors(), kMostInTeam);
  if (rows == 0 || rows > kBlockRows || weights < kFewestWeights || threads == 1) {
    return for_blocks(kernel, rows, widths, parallel_for,
                      [&](int64_t begin, int64_t count, const RowScratch& scratch) {
                        Team::Alone alone;
                        body(alone, begin, count, scratch);
                      });
  }
  std::byte* memory = thread_memory(bytes_of(widths));
  if (memory == nullptr) throw std::bad_alloc();
  Team team(threads);
  parallel_for(static_cast<size_t>(threads), [&](size_t) {
    Team::Member member(team);
    body(member, 0, rows, scratch_in(memory, widths));
  });
}

// Rows of a step that each thread has one part of, and columns, of which a thread that comes late
// finds some left.
template <typename Member>
int64_t share_of_rows(const Member& member, int64_t rows) {
  return (rows + member.threads() - 1) / member.threads();
}

template <typename Member>
void multiply_step(Member& member, const RowKernel& kernel, const LinearWeights& layer,
                   const float* x, int64_t rows, Activation activation, float* y,
                   const RowScratch& scratch) {
  constexpr int64_t kParts = 3;
  const int64_t parts = kParts * member.threads();
  const int64_t columns = round_up((layer.outputs + parts - 1) / parts, kernel.columns);
  member.step(layer.outputs, columns, [&](int64_t begin, int64_t end) {
    kernel.multiply(layer, x, rows, activation, y, begin, end, scratch);
  });
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
  const auto block = [&](auto& member, int64_t begin, int64_t count, const RowScratch& scratch) {
    const float* const from = x + begin * weights.inputs;
    member.step(count, share_of_rows(member, count), [&](int64_t first, int64_t past) {
      kernel.quantise(weights, from, first, past, scratch);
    });
    multiply_step(member, kernel, weights, from, count, Activation::kNone,
                  y + begin * weights.outputs, scratch);
  };
  for_blocks_in_steps(kernel, rows, weights.inputs * weights.outputs, {weights.inputs, 0, 0},
                      parallel_for, block);
}

void post_attention(const RowKernel& kernel, const PostAttentionWeights& weights,
                    const float* context, const float* hidden, int64_t rows, float* output,
                    float* qkv, const ParallelFor& parallel_for) {
  const LinearWeights& out = weights.out->weights();
  const LinearWeights& inner = weights.inner->weights();
  const LinearWeights& outer = weights.outer->weights();
  const LinearWeights* const next = weights.qkv == nullptr ? nullptr : &weights.qkv->weights();
  const int64_t width = out.outputs;
  const int64_t wide = inner.outputs;
  const NormWeights attended = weights.attended.weights();
  const NormWeights last = weights.output.weights();
  const auto block = [&](auto& member, int64_t begin, int64_t count, const RowScratch& scratch) {
    const float* const from = context + begin * out.inputs;
    const float* const residual = hidden + begin * width;
    float* const sum = output + begin * width;
    const int64_t share = share_of_rows(member, count);
    member.step(count, share, [&](int64_t first, int64_t past) {
      kernel.quantise(out, from, first, past, scratch);
    });
    multiply_step(member, kernel, out, from, count, Activation::kNone, scratch.narrow, scratch);
    member.step(count, share, [&](int64_t first, int64_t past) {
      kernel.add_and_norm(scratch.narrow + first * width, residual + first * width, past - first,
                          width, attended, sum + first * width);
      kernel.quantise(inner, sum, first, past, scratch);
    });
    multiply_step(member, kernel, inner, sum, count, Activation::kGelu, scratch.wide, scratch);
    member.step(count, share, [&](int64_t first, int64_t past) {
      kernel.quantise(outer, scratch.wide, first, past, scratch);
    });
    multiply_step(member, kernel, outer, scratch.wide, count, Activation::kNone, scratch.narrow,
                  scratch);
    member.step(count, share, [&](int64_t first, int64_t past) {
      float* const own = sum + first * width;
      kernel.add_and_norm(scratch.narrow + first * width, own, past - first, width, last, own);
      if (next != nullptr) kernel.quantise(*next, sum, first, past, scratch);
    });
    if (next == nullptr) return;
    multiply_step(member, kernel, *next, sum, count, Activation::kNone, qkv + begin * next->outputs,
                  scratch);
  };
  for_blocks_in_steps(kernel, rows, out.inputs * width + 2 * width * wide,
                      {std::max({out.inputs, width, wide}), wide, width}, parallel_for, block);
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
  for_blocks(kernel, tokens, {}, parallel_for, block);
}

}  // namespace crisp
