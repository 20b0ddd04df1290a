// Checks, cuts the work into chunks, hands them to the threads and adds up what tokens received.
#include "sparse_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>

namespace crisp {
namespace {

constexpr int64_t kRowsPerItem = 24;       // a multiple of every kernel's rows per tile
constexpr int64_t kMaxChunks = 128;        // enough to balance many threads
constexpr int64_t kMinChunkCost = 200000;  // multiply-adds, some ten microseconds

// The point of the standard normal distribution that a share `tail` of it exceeds, to 5e-4.
// Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.23.
float normal_deviations(double tail) {
  if (tail > 0.5) return -normal_deviations(1 - tail);
  const double t = std::sqrt(-2 * std::log(std::max(tail, 1e-9)));
  const double numerator = 2.515517 + t * (0.802853 + t * 0.010328);
  const double denominator = 1 + t * (1.432788 + t * (0.189269 + t * 0.001308));
  return static_cast<float>(t - numerator / denominator);
}

// An estimate, only to balance the chunks.
int64_t cost_of_row(const Operands& operands, int64_t length) {
  const Pattern& pattern = operands.pattern;
  int64_t local = length;
  if (pattern.kind == PatternKind::kBand) local = std::min(length, pattern.window);
  if (pattern.kind == PatternKind::kBlock) local = std::min(length, pattern.size);
  const int64_t keys = std::min(length, local + std::min(length, pattern.globals));
  return (keys + 8) * 2 * operands.head_size;
}

struct Schedule {
  std::vector<QueryRows> items;
  std::vector<size_t> chunk_begins;  // into items; one more than there are chunks
  int64_t longest = 0;
};

// Sequence by sequence, head by head, so that a chunk packs each head's keys once. Depends on the
// sizes alone, never on the number of threads, and so do the results.
Schedule schedule_of(const Operands& operands) {
  Schedule schedule;
  std::vector<int64_t> costs;
  int64_t total = 0;
  for (int64_t sequence = 0; sequence < operands.batch; ++sequence) {
    QueryRows rows{};
    rows.first_token = operands.cu_seqlens[sequence];
    rows.length = operands.cu_seqlens[sequence + 1] - rows.first_token;
    if (rows.length == 0) continue;
    rows.kept = kept_keys(operands.pattern, rows.length);
    rows.kept_deviations = normal_deviations((rows.kept - 0.5) / static_cast<double>(rows.length));
    schedule.longest = std::max(schedule.longest, rows.length);
    const int64_t row_cost = cost_of_row(operands, rows.length);
    for (rows.head = 0; rows.head < operands.num_heads; ++rows.head) {
      for (rows.row_begin = 0; rows.row_begin < rows.length; rows.row_begin = rows.row_end) {
        rows.row_end = std::min(rows.length, rows.row_begin + kRowsPerItem);
        schedule.items.push_back(rows);
        costs.push_back((rows.row_end - rows.row_begin) * row_cost);
        total += costs.back();
      }
    }
  }
  const int64_t enough = std::max(kMinChunkCost, total / kMaxChunks);
  int64_t cost = 0;
  for (size_t item = 0; item < schedule.items.size(); ++item) {
    if (cost == 0) schedule.chunk_begins.push_back(item);
    cost += costs[item];
    if (cost >= enough) cost = 0;
  }
  schedule.chunk_begins.push_back(schedule.items.size());
  return schedule;
}

// Memory for one chunk, aligned to a cache line; its contents are undefined.
std::unique_ptr<float, decltype(&std::free)> allocate_scratch(int64_t floats) {
  const size_t bytes =
      static_cast<size_t>(round_up(std::max<int64_t>(floats, 1), 16)) * sizeof(float);
  auto* memory = static_cast<float*>(std::aligned_alloc(64, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return {memory, &std::free};
}

}  // namespace

void check_cu_seqlens(const int32_t* cu_seqlens, int64_t count, int64_t tokens) {
  const auto refuse = [](const std::string& what) {
    throw std::invalid_argument("cu_seqlens " + what);
  };
  if (count < 1) refuse("must hold the offsets of B sequences, [B + 1], but is empty");
  if (cu_seqlens[0] != 0) refuse("must start at 0, got " + std::to_string(cu_seqlens[0]));
  for (int64_t i = 1; i < count; ++i) {
    if (cu_seqlens[i] < cu_seqlens[i - 1]) {
      refuse("must not decrease, got " + std::to_string(cu_seqlens[i - 1]) + " and then " +
             std::to_string(cu_seqlens[i]) + " at index " + std::to_string(i));
    }
  }
  if (cu_seqlens[count - 1] != tokens) {
    refuse("must end at the number of tokens, " + std::to_string(tokens) + ", got " +
           std::to_string(cu_seqlens[count - 1]));
  }
}

void sparse_attention(const Operands& operands, Isa isa, const ParallelFor& parallel_for) {
  const Schedule schedule = schedule_of(operands);
  const size_t chunks = schedule.chunk_begins.size() - 1;
  const int64_t tokens = operands.cu_seqlens[operands.batch];

  // Each chunk adds up on its own what the tokens of its sequences received: a shared sum would
  // race, and its rounding would depend on the order.
  std::vector<Chunk> work(chunks);
  std::vector<std::vector<float>> received(operands.received != nullptr ? chunks : 0);
  for (size_t i = 0; i < chunks; ++i) {
    const QueryRows& first = schedule.items[schedule.chunk_begins[i]];
    const QueryRows& last = schedule.items[schedule.chunk_begins[i + 1] - 1];
    work[i].rows = &first;
    work[i].count = static_cast<int64_t>(schedule.chunk_begins[i + 1] - schedule.chunk_begins[i]);
    work[i].scratch = nullptr;
    work[i].received = nullptr;
    work[i].received_begin = first.first_token;
    if (operands.received != nullptr) {
      received[i].resize(static_cast<size_t>(last.first_token + last.length - first.first_token));
      work[i].received = received[i].data();
    }
  }

  const AttendChunk attend_chunk = kernel_for(isa);
  const int64_t scratch = scratch_floats(schedule.longest, operands.head_size);
  std::atomic<bool> out_of_memory{false};
  const auto task = [&](size_t i) {
    try {
      const auto memory = allocate_scratch(scratch);
      Chunk chunk = work[i];
      chunk.scratch = memory.get();
      attend_chunk(operands, chunk);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
  };
  if (chunks == 1) {
    task(0);
  } else if (chunks > 1) {
    parallel_for(chunks, task);
  }
  if (out_of_memory) throw std::bad_alloc();

  if (operands.received == nullptr) return;
  std::fill_n(operands.received, tokens, 0.0f);
  for (size_t i = 0; i < chunks; ++i) {
    float* to = operands.received + work[i].received_begin;
    for (size_t token = 0; token < received[i].size(); ++token) to[token] += received[i][token];
  }
  const float per_head = 1.0f / static_cast<float>(operands.num_heads);
  for (int64_t token = 0; token < tokens; ++token) operands.received[token] *= per_head;
}

}  // namespace crisp
