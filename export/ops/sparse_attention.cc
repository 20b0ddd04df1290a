// Checks, cuts the work into chunks, hands them to the threads and adds up what tokens received.
#include "sparse_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <new>
#include <stdexcept>

#include "thread_memory.h"

namespace crisp {
namespace {

constexpr int64_t kRowStep = 24;                   // a multiple of every kernel's rows per tile
constexpr int64_t kPackingShare = 24;              // a chunk computes this many times what it packs
constexpr int64_t kMaxChunks = 64;                 // enough to balance many threads
constexpr int64_t kMinChunkCost = 1000000;         // multiply-adds, some forty microseconds
constexpr int64_t kLargestKeptScratch = 16000000;  // bytes that a thread holds on to between calls

// The point of the standard normal distribution that a share `tail` of it exceeds, to 5e-4.
// Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.23.
float normal_deviations(double tail) {
  if (tail > 0.5) return -normal_deviations(1 - tail);
  const double t = std::sqrt(-2 * std::log(std::max(tail, 1e-9)));
  const double numerator = 2.515517 + t * (0.802853 + t * 0.010328);
  const double denominator = 1 + t * (1.432788 + t * (0.189269 + t * 0.001308));
  return static_cast<float>(t - numerator / denominator);
}

// Keys that a query looks at, some blocks more or less.
int64_t seen_keys(const Pattern& pattern, int64_t length, int64_t blocks, int64_t kept) {
  const auto within = [length](int64_t keys) { return std::min(length, keys); };
  switch (pattern.kind) {
    case PatternKind::kBand:
      return within(within(pattern.window) + within(pattern.globals));
    case PatternKind::kBlock:
      return within(within(pattern.size) + within(pattern.globals));
    case PatternKind::kBlockTopK:
      return blocks > 0 ? within((kept + 2) * pattern.size) : length;
    default:
      return length;
  }
}

// Estimates in multiply-adds, only to cut the work: exp takes about as long as 16 of them,
// selecting by score as 32, and moving a float into its place as 8.
int64_t cost_of_row(const Operands& operands, int64_t keys) {
  const int64_t selection = operands.pattern.kind == PatternKind::kTopK ? 32 : 0;
  return (keys + 8) * (2 * operands.head_size + 16 + selection);
}

int64_t cost_of_packing(const Operands& operands, int64_t length) {
  return length * 2 * operands.head_size * 8;
}

struct Schedule {
  std::vector<QueryRows> items;
  std::vector<size_t> chunk_begins;  // into items; one more than there are chunks
  int64_t longest = 0;
  int64_t most_blocks = 0;
};

// Rows of one item, such that packing costs little beside them; whole blocks where rows choose.
int64_t rows_per_item(const Operands& operands, const QueryRows& rows, int64_t row_cost) {
  const int64_t enough = kPackingShare * cost_of_packing(operands, rows.length) / row_cost + 1;
  const int64_t items = std::max<int64_t>(1, rows.length / enough);
  const int64_t even = (rows.length + items - 1) / items;
  return round_up(even, rows.blocks > 0 ? operands.pattern.size : kRowStep);
}

// Sequence by sequence, head by head, so that a chunk packs each head's keys once. Depends on the
// sizes alone, never on the number of threads, and so do the results.
Schedule schedule_of(const Operands& operands) {
  const Pattern& pattern = operands.pattern;
  const bool first_only = operands.queries == Queries::kFirst;
  Schedule schedule;
  schedule.items.reserve(static_cast<size_t>(operands.batch * operands.num_heads));
  std::vector<int64_t> costs;
  costs.reserve(schedule.items.capacity());
  int64_t total = 0;
  for (int64_t sequence = 0; sequence < operands.batch; ++sequence) {
    QueryRows rows{};
    rows.first_token = operands.cu_seqlens[sequence];
    rows.length = operands.cu_seqlens[sequence + 1] - rows.first_token;
    if (rows.length == 0) continue;
    rows.first_context = first_only ? sequence : rows.first_token;
    rows.kept = kept_keys(pattern, rows.length);
    const int64_t blocks = first_only ? 0 : block_count(pattern, rows.length);
    if (blocks > 0 && kept_blocks(pattern, blocks) < blocks) {
      rows.blocks = blocks;
      rows.kept = kept_blocks(pattern, blocks);
    }
    const int64_t candidates = rows.blocks > 0 ? rows.blocks : rows.length;
    rows.kept_deviations =
        normal_deviations((static_cast<double>(rows.kept) - 0.5) / static_cast<double>(candidates));
    schedule.longest = std::max(schedule.longest, rows.length);
    schedule.most_blocks = std::max(schedule.most_blocks, rows.blocks);
    const int64_t row_cost =
        cost_of_row(operands, seen_keys(pattern, rows.length, rows.blocks, rows.kept));
    const int64_t item_rows = rows_per_item(operands, rows, row_cost);
    const int64_t end = first_only ? 1 : rows.length;
    for (rows.head = 0; rows.head < operands.num_heads; ++rows.head) {
      for (rows.row_begin = 0; rows.row_begin < end; rows.row_begin = rows.row_end) {
        rows.row_end = std::min(end, rows.row_begin + item_rows);
        schedule.items.push_back(rows);
        costs.push_back((rows.row_end - rows.row_begin) * row_cost +
                        cost_of_packing(operands, rows.length));
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

// A sequence without tokens has no first query: its row of the context is zero.
void clear_empty_sequences(const Operands& operands) {
  const int64_t hidden = operands.num_heads * operands.head_size;
  for (int64_t sequence = 0; sequence < operands.batch; ++sequence) {
    if (operands.cu_seqlens[sequence] == operands.cu_seqlens[sequence + 1]) {
      std::fill_n(operands.context + sequence * hidden, hidden, 0.0f);
    }
  }
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
  if (operands.queries == Queries::kFirst) clear_empty_sequences(operands);
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
      received[i].resize(
          static_cast<size_t>(last.first_token + last.length - first.first_token + kMaxPanel));
      work[i].received = received[i].data();
    }
  }

  const AttendChunk attend_chunk = kernel_for(isa);
  const int64_t scratch_bytes =
      scratch_floats(schedule.longest, schedule.most_blocks, operands.head_size) *
      static_cast<int64_t>(sizeof(float));
  std::atomic<bool> out_of_memory{false};
  const auto task = [&](size_t i) {
    thread_local ThreadMemory memory;
    std::byte* const scratch = memory.take(scratch_bytes);
    if (scratch == nullptr) {
      out_of_memory = true;
      return;
    }
    Chunk chunk = work[i];
    chunk.scratch = reinterpret_cast<float*>(scratch);
    attend_chunk(operands, chunk);
    memory.release_beyond(kLargestKeptScratch);
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
    const size_t count = received[i].size() - kMaxPanel;
    for (size_t token = 0; token < count; ++token) to[token] += received[i][token];
  }
  const float per_head = 1.0f / static_cast<float>(operands.num_heads);
  for (int64_t token = 0; token < tokens; ++token) operands.received[token] *= per_head;
}

}  // namespace crisp
