// Cuts the rows into blocks and hands those to the threads.
#include "rows.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>

#include "kernel.h"
#include "team.h"
#include "thread_memory.h"

namespace crisp {
namespace {

constexpr int64_t kMostInTeam = 4;           // threads: more would wait for each other too often
constexpr int64_t kFewestWeights = 1 << 18;  // to share: some ten microseconds of reading them
constexpr int64_t kFewestRows = 6;  // of a task: a full tile, since each reads all the weights

// Where work goes, and how many threads it is cut for.
struct Threads {
  const ParallelFor& parallel_for;
  int64_t count;
};

struct Widths {
  int64_t input;  // the widest of all layers
  int64_t output;
  int64_t hidden;
};

int64_t bytes_of(const Widths& widths) {
  return kBlockRows * (round_up(widths.input, 64) + 4 * (round_up(widths.output, kMaxColumns) +
                                                         round_up(widths.hidden, 16) + 2));
}

// For a thread's own rows or, by the thread that starts a team, for all of it. Null where there is
// no memory; it is small and always of like size, so that it is never given back.
std::byte* scratch_memory(const Widths& widths) {
  thread_local ThreadMemory memory;
  return memory.take(bytes_of(widths));
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
// shares for the threads. Which they are changes no result.
template <typename Body>
void for_blocks(const RowKernel& kernel, int64_t rows, const Widths& widths, const Threads& threads,
                const Body& body) {
  if (rows == 0) return;
  const int64_t in_a_turn = threads.count * kernel.task_rows;
  const int64_t turns = (rows + in_a_turn - 1) / in_a_turn;
  const int64_t shares = threads.count * turns;
  const int64_t size = std::max(std::min(kFewestRows, rows), (rows + shares - 1) / shares);
  const int64_t blocks = (rows + size - 1) / size;
  std::atomic<bool> out_of_memory{false};
  const auto task = [&](size_t block) {
    const int64_t begin = static_cast<int64_t>(block) * size;
    std::byte* memory = scratch_memory(widths);
    if (memory == nullptr) {
      out_of_memory = true;
      return;
    }
    body(begin, std::min(size, rows - begin), scratch_in(memory, widths));
  };
  if (blocks == 1) {
    task(0);
  } else {
    threads.parallel_for(static_cast<size_t>(blocks), task);
  }
  if (out_of_memory) throw std::bad_alloc();
}

// The same where all threads may share few rows, which they do weight by weight: each reads a part
// of the weights, and these are what takes the time. Calls body(member, first row, number of rows,
// scratch), where member is of a Team or alone; `weights` is how many there are.
template <typename Body>
void for_blocks_in_steps(const RowKernel& kernel, int64_t rows, int64_t weights,
                         const Widths& widths, const Threads& threads, const Body& body) {
  const int64_t members = std::min(threads.count, kMostInTeam);
  if (rows == 0 || rows > kBlockRows || weights < kFewestWeights || members == 1) {
    return for_blocks(kernel, rows, widths, threads,
                      [&](int64_t begin, int64_t count, const RowScratch& scratch) {
                        Team::Alone alone;
                        body(alone, begin, count, scratch);
                      });
  }
  std::byte* memory = scratch_memory(widths);
  if (memory == nullptr) throw std::bad_alloc();
  Team team(members);
  threads.parallel_for(static_cast<size_t>(members), [&](size_t) {
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

}  // namespace

void linear(const RowKernel& kernel, const PackedLinear& layer, const float* x, int64_t rows,
            float* y, const ParallelFor& parallel_for, int64_t threads) {
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
                      {parallel_for, threads}, block);
}

void post_attention(const RowKernel& kernel, const PostAttentionWeights& weights,
                    const float* context, const float* hidden, int64_t rows, float* output,
                    float* qkv, const ParallelFor& parallel_for, int64_t threads) {
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
                      {std::max({out.inputs, width, wide}), wide, width}, {parallel_for, threads},
                      block);
}

void embed(const RowKernel& kernel, const EmbeddingTable& words, const EmbeddingTable& positions,
           const LayerNorm& norm, const int64_t* input_ids, const int32_t* cu_seqlens,
           int64_t batch, float* hidden, const ParallelFor& parallel_for, int64_t threads) {
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
  for_blocks(kernel, tokens, {}, {parallel_for, threads}, block);
}

}  // namespace crisp
