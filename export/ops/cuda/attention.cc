// Plans crisp::SparseAttention: which program for which sequences, in how much shared memory.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "attend_rows.h"
#include "attend_tiles.h"
#include "choose_blocks.h"
#include "launch.h"
#include "operators.h"
#include "sum_received.h"

namespace crisp {
namespace cuda {
namespace {

constexpr int64_t kWidest = 128;          // head_size that the programs are compiled for
constexpr int64_t kShort = 128;           // tokens of which one block takes all queries
constexpr int64_t kRowsOfLongBlock = 64;  // queries of a block in longer sequences

using Sequences = std::vector<Units<Segment>>;

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

// A value of Pattern as the programs compute with it: larger ones mean no more than all.
int32_t clamped(int64_t value) { return narrow(std::min<int64_t>(value, 1 << 30)); }

// The sequences that have tokens; units are not counted yet.
Sequences sequences_of(const Attention& call) {
  Sequences sequences;
  int64_t blocks = 0;
  for (int64_t i = 0; i < call.batch; ++i) {
    const int64_t first = call.cu_seqlens[i];
    const int64_t length = call.cu_seqlens[i + 1] - first;
    if (length == 0) continue;
    Segment segment{};
    segment.first_token = narrow(first);
    segment.length = narrow(length);
    segment.first_row = call.queries == Queries::kFirst ? narrow(i) : segment.first_token;
    const int64_t own_blocks = block_count(call.pattern, length);
    segment.kept = narrow(own_blocks > 0 ? kept_blocks(call.pattern, own_blocks)
                                         : kept_keys(call.pattern, length));
    segment.first_block = narrow(blocks);
    blocks += own_blocks;
    sequences.push_back({segment, 0});
  }
  return sequences;
}

template <class Count>
const Sequences& count_units(Sequences& sequences, const Count& count) {
  for (Units<Segment>& sequence : sequences) sequence.count = count(sequence.entry);
  return sequences;
}

int64_t longest_of(const Sequences& sequences) {
  int64_t longest = 0;
  for (const auto& sequence : sequences)
    longest = std::max<int64_t>(longest, sequence.entry.length);
  return longest;
}

// Rows at a time: 16, or as many as shared memory holds; bytes_for says what some need.
template <class BytesFor>
int32_t rows_that_fit(const BytesFor& bytes_for, int64_t longest) {
  int32_t rows = kRows;
  while (rows > 1 && bytes_for(rows) > most_shared_bytes()) rows /= 2;
  if (bytes_for(rows) > most_shared_bytes()) {
    throw std::invalid_argument("a sequence of " + std::to_string(longest) +
                                " tokens is too long for the shared memory of this GPU with this "
                                "pattern; shorten it, or use dense, band or block");
  }
  return rows;
}

// Where blocks choose: the bits of the blocks chosen. Queries of a sequence that keeps all of its
// blocks see all, too.
template <class T>
void choose_blocks(const Device& device, const Attention& call, Sequences& sequences,
                   Visible& visible) {
  const int64_t size = call.pattern.size;
  const auto blocks_of = [size](const Segment& segment) { return (segment.length - 1) / size + 1; };
  int64_t blocks = 0;
  int64_t most = 0;
  bool any = false;
  for (const Units<Segment>& sequence : sequences) {
    const int64_t own = blocks_of(sequence.entry);
    blocks += own;
    most = std::max(most, own);
    any |= sequence.entry.kept < own;
  }
  if (!any) return;
  const int64_t words = (most + 31) / 32;
  const size_t heads = static_cast<size_t>(call.num_heads);
  auto* const means = static_cast<float*>(
      device.allocate(sizeof(float) * heads * static_cast<size_t>(blocks * 2 * call.head_size)));
  auto* const chosen = static_cast<uint32_t*>(
      device.allocate(sizeof(uint32_t) * heads * static_cast<size_t>(blocks * words)));

  PoolBlocksArguments pool{};
  pool.qkv = call.qkv;
  pool.means = means;
  pool.blocks = narrow(blocks);
  pool.size = clamped(size);
  pool.hidden = narrow(call.num_heads * call.head_size);
  pool.head_size = narrow(call.head_size);
  launch_all<PoolBlocks<T>>(device, count_units(sequences, blocks_of), call.num_heads, pool,
                            [] { return size_t{0}; });

  ChooseBlocksArguments choose{};
  choose.means = means;
  choose.chosen = chosen;
  choose.blocks = pool.blocks;
  choose.words = narrow(words);
  choose.size = pool.size;
  choose.head_size = pool.head_size;
  choose.most_blocks = narrow(most);
  const auto bytes_for = [most](int32_t rows) {
    return ChooseBlocks::shared_bytes(rows, narrow(most));
  };
  choose.rows = rows_that_fit(bytes_for, longest_of(sequences));
  const int64_t rows = choose.rows;
  launch_all<ChooseBlocks>(
      device,
      count_units(sequences, [&](const Segment& s) { return divide_up(blocks_of(s), rows); }),
      call.num_heads, choose, [&] { return bytes_for(choose.rows); });
  visible.chosen = chosen;
  visible.words = choose.words;
  visible.blocks = choose.blocks;
}

template <class T, int kWidth>
void attend_tiles(const Device& device, const Attention& call, Sequences& sequences,
                  const Visible& visible) {
  using Program = AttendTiles<T, kWidth>;
  AttendTilesArguments arguments{};
  arguments.visible = visible;
  arguments.qkv = call.qkv;
  arguments.context = call.context;
  arguments.hidden = narrow(call.num_heads * call.head_size);
  arguments.head_size = narrow(call.head_size);
  arguments.scale = 1.0f / std::sqrt(static_cast<float>(call.head_size));
  const auto tiles = [](const Segment& segment) { return divide_up(segment.length, kQueries); };
  launch_all<Program>(device, count_units(sequences, tiles), call.num_heads, arguments,
                      [] { return Program::kSharedBytes; });
}

void sum_received(const Device& device, const Attention& call, Sequences& sequences,
                  const AttendRowsArguments& rows) {
  SumReceivedArguments arguments{};
  arguments.partial = rows.partial;
  arguments.received = call.received;
  arguments.partials = rows.partials;
  arguments.num_heads = narrow(call.num_heads);
  arguments.rows_of_block = rows.rows_of_block;
  arguments.first_only = rows.first_only;
  const auto units = [](const Segment& segment) {
    return divide_up(segment.length, SumReceived::kThreads);
  };
  launch_all<SumReceived>(device, count_units(sequences, units), 1, arguments,
                          [] { return size_t{0}; });
}

template <class T, int kWidth>
void attend_rows(const Device& device, const Attention& call, Sequences& sequences,
                 const Visible& visible) {
  using Program = AttendRows<T, kWidth>;
  const int64_t longest = longest_of(sequences);
  AttendRowsArguments arguments{};
  arguments.visible = visible;
  arguments.qkv = call.qkv;
  arguments.context = call.context;
  arguments.hidden = narrow(call.num_heads * call.head_size);
  arguments.head_size = narrow(call.head_size);
  arguments.longest = narrow(longest);
  arguments.first_only = call.queries == Queries::kFirst;
  arguments.scale = 1.0f / std::sqrt(static_cast<float>(call.head_size));
  const auto bytes_for = [&](int32_t rows) {
    return Program::shared_bytes(rows, narrow(longest), call.received != nullptr);
  };
  arguments.rows = arguments.first_only ? 1 : rows_that_fit(bytes_for, longest);
  if (arguments.first_only) rows_that_fit(bytes_for, longest);  // for its message
  arguments.rows_of_block = narrow(longest <= kShort ? kShort : kRowsOfLongBlock);
  const auto units = [&](const Segment& segment) {
    return arguments.first_only ? int64_t{1} : divide_up(segment.length, arguments.rows_of_block);
  };
  count_units(sequences, units);
  if (call.received != nullptr) {
    for (Units<Segment>& sequence : sequences) {
      sequence.entry.first_partial = narrow(arguments.partials);
      arguments.partials += sequence.count * sequence.entry.length;
    }
    if (arguments.partials > INT32_MAX) {
      throw std::invalid_argument("too many tokens for what they received: split the batch");
    }
    arguments.partial = static_cast<float*>(
        device.allocate(sizeof(float) * static_cast<size_t>(call.num_heads * arguments.partials)));
  }
  launch_all<Program>(device, sequences, call.num_heads, arguments,
                      [&] { return bytes_for(arguments.rows); });
  if (call.received != nullptr) sum_received(device, call, sequences, arguments);
}

template <class T, int kWidth>
void attend(const Device& device, const Attention& call) {
  Sequences sequences = sequences_of(call);
  const bool first_only = call.queries == Queries::kFirst;
  if (first_only && static_cast<int64_t>(sequences.size()) < call.batch) {
    // A sequence without tokens has no first query: its row of the context is zero.
    fill_zero(device, call.context,
              sizeof(T) * static_cast<size_t>(call.batch * call.num_heads * call.head_size));
  }
  if (sequences.empty()) return;
  Visible visible{};
  visible.kind = call.pattern.kind;
  visible.reach = clamped(call.pattern.window / 2);
  visible.size = clamped(call.pattern.size);
  visible.globals = clamped(call.pattern.globals);
  if (call.pattern.kind == PatternKind::kBlockTopK && !first_only) {
    choose_blocks<T>(device, call, sequences, visible);
  }
  // Floats of wide heads need more shared memory for tiles than some GPUs have; rows need less.
  const bool tiles = call.pattern.kind != PatternKind::kTopK && call.received == nullptr &&
                     AttendTiles<T, kWidth>::kSharedBytes <= most_shared_bytes();
  if (tiles && !first_only) {
    attend_tiles<T, kWidth>(device, call, sequences, visible);
  } else {
    attend_rows<T, kWidth>(device, call, sequences, visible);
  }
}

template <class T>
void attend(const Device& device, const Attention& call) {
  if (call.head_size <= 32) return attend<T, 32>(device, call);
  if (call.head_size <= 64) return attend<T, 64>(device, call);
  return attend<T, kWidest>(device, call);
}

}  // namespace

void sparse_attention(const Device& device, const Attention& call) {
  if (call.head_size > kWidest) {
    throw std::invalid_argument("heads may have " + std::to_string(kWidest) +
                                " columns on a GPU, got " + std::to_string(call.head_size));
  }
  if (call.precision == Precision::kHalf) return attend<Half>(device, call);
  attend<float>(device, call);
}

}  // namespace cuda
}  // namespace crisp
