// The CPU kernel of crisp::SparseAttention: one source for every instruction set.
//
// CMakeLists.txt compiles it once for each instruction set, with CRISP_ISA as the namespace,
// CRISP_VECTOR_BYTES as the width of a vector and CRISP_TILE_ROWS as the number of query rows whose
// accumulators fit in the registers. kernel.h says what this file must not use.
//
// For one sequence and head, keys are packed into panels of two vectors,
// [panel][head_size][kPanel], and values into rows padded to a multiple of kPanel (kernel_pack.h).
// Each tile of query rows has a list of the panels that it looks at (kernel_panels.h), chosen by
// scores of pooled blocks where the pattern says so (kernel_blocks.h), and over those alone it
// computes (kernel_tile.h)
//   scores      a panel at a time, rows x two vectors in registers
//   softmax     a row at a time: threshold of top-k, exp, sum
//   context     numerators x values, again rows x two vectors in registers
// or, where the operands allow to round and the processor has products of bfloat16, the same with
// those (kernel_bf16.h).
#include "kernel.h"

#include <stdint.h>

#include "kernel_blocks.h"
#include "kernel_floats.h"
#include "kernel_isa.h"
#include "kernel_pack.h"
#include "kernel_panels.h"
#include "kernel_tile.h"
#include "kernel_vectors.h"
#if defined(CRISP_AMX_BF16)
#include "kernel_bf16_amx.h"
#elif defined(CRISP_BF16)
#include "kernel_bf16_vectors.h"
#endif

namespace crisp {
namespace CRISP_ISA {
namespace {

#if defined(CRISP_AMX_BF16)
constexpr int64_t kMostRows = kTileHeight;
#else
constexpr int64_t kMostRows = kTileRows;
#endif

// The parts of a chunk's scratch memory, for one sequence and head.
struct Workspace {
  Packed packed;
  bool bf16;  // keys and values are packed as such
  Blocks blocks;
  Panels everything;  // every panel of the sequence
  Panels some;        // those that one tile looks at, where it isn't all
  float* scores;
  float* row_scores;
  float* sums;
};

Workspace lay_out(float* memory, const QueryRows& rows, int64_t head_size) {
  const auto take = [&memory](int64_t floats) {
    float* const taken = memory;
    memory += round_up(floats, kMaxPanel);
    return taken;
  };
  const auto take_ints = [&take](int64_t ints) { return reinterpret_cast<int32_t*>(take(ints)); };
  const int64_t keys = round_up(rows.length, kMaxPanel);
  const int64_t blocks = round_up(rows.blocks, kMaxPanel);
  Workspace work{};
  work.packed.value_stride = round_up(head_size, kPanel);
  work.packed.keys = take(keys * head_size);
  work.packed.values = take(keys * work.packed.value_stride);
  work.scores = take(keys * kMostRows);
  work.row_scores = take(keys);
  work.sums = take(kMostRows * work.packed.value_stride);
  Panels* const lists[] = {&work.everything, &work.some};
  for (Panels* const panels : lists) {
    panels->number = take_ints(keys / kPanel);
    panels->partial = take_ints(keys / kPanel);
  }
  work.blocks.pooled_keys = take(blocks * head_size);
  work.blocks.mean = take(head_size);
  work.blocks.scores = take(blocks);
  work.blocks.kept = take_ints(blocks);
  return work;
}

// The rows of one tile: at most `most`, evenly spread, all of one query block, and [CLS] by itself
// where its row sees more than the rest of its block.
int64_t tile_rows(const QueryRows& rows, bool chooses, int64_t size, int64_t row, int64_t most) {
  int64_t left = rows.row_end - row;
  if (chooses && row == 0) return 1;
  if (chooses) left = left < size - row % size ? left : size - row % size;
  const int64_t tiles = (left + most - 1) / most;
  return (left + tiles - 1) / tiles;
}

// Packs one sequence and head for the kernel that it goes by: that of bfloat16, where the operands
// allow it and all values are finite in it (0 x inf would be NaN), or that of floats.
void pack(const Operands& operands, const float* keys, const QueryRows& rows, Workspace& work) {
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  const float* values = keys + hidden;
#if defined(CRISP_BF16)
  work.bf16 = operands.bf16 && has_tiles(head_size) &&
              pack_values_bf16(values, 3 * hidden, rows.length, head_size,
                               reinterpret_cast<uint16_t*>(work.packed.values));
  if (work.bf16) {
    return pack_keys_bf16(keys, 3 * hidden, rows.length, head_size,
                          reinterpret_cast<uint16_t*>(work.packed.keys));
  }
#endif
  pack_panels(keys, 3 * hidden, rows.length, head_size, work.packed.keys);
  work.packed.values_finite = pack_rows(values, 3 * hidden, rows.length, head_size,
                                        work.packed.values, work.packed.value_stride);
}

void attend_rows(const Operands& operands, const Chunk& chunk, const QueryRows& rows,
                 Workspace& work) {
  const Pattern& pattern = operands.pattern;
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  const int64_t stride = 3 * hidden;
  const bool local = pattern.kind != PatternKind::kDense && pattern.kind != PatternKind::kTopK &&
                     pattern.kind != PatternKind::kBlockTopK;
  const bool chooses = rows.blocks > 0;
  const float* queries = operands.qkv + rows.first_token * stride + rows.head * head_size;
  float* context = operands.context + rows.first_context * hidden + rows.head * head_size;

  Sight sight{};
  for (VisibleKeys& visible : sight.by_position) visible = {0, 0, rows.length};
  sight.same_for_all = !local;
  sight.block_size = pattern.size;
  const Panels* panels = &work.everything;
  int64_t chosen_for = -1;
  int64_t count = 0;
  for (int64_t row = rows.row_begin; row < rows.row_end; row += count) {
    count = tile_rows(rows, chooses, pattern.size, row, work.bf16 ? kMostRows : kTileRows);
    if (local) {
      for (int64_t i = 0; i < count; ++i) {
        sight.by_position[i] = visible_keys(pattern, row + i, rows.length);
      }
      list_visible(sight, count, work.some);
      panels = &work.some;
    } else if (chooses && row > 0 && row / pattern.size != chosen_for) {
      chosen_for = row / pattern.size;
      const float* block_queries = queries + chosen_for * pattern.size * stride;
      const bool all_kept = choose_blocks(block_queries, stride, pattern.size, head_size, rows,
                                          chosen_for, work.blocks);
      if (!all_kept) list_kept(work.blocks.kept, pattern.size, rows.length, work.some);
      panels = all_kept ? &work.everything : &work.some;
      sight.kept_blocks = all_kept ? nullptr : work.blocks.kept;
    }
    float* received = chunk.received;
    if (received != nullptr) received += rows.first_token - chunk.received_begin;
    const Tile tile = {queries + row * stride,
                       stride,
                       context + row * hidden,
                       hidden,
                       received,
                       head_size,
                       work.packed,
                       *panels,
                       sight,
                       rows,
                       pattern.kind == PatternKind::kTopK,
                       work.scores,
                       work.row_scores,
                       work.sums};
#if defined(CRISP_AMX_BF16)
    if (work.bf16) {
      attend_tile_bf16(tile, count);
      continue;
    }
#elif defined(CRISP_BF16)
    if (work.bf16) {
      attend_tile<PairProducts>(tile, count);
      continue;
    }
#endif
    attend_tile<FloatProducts>(tile, count);
  }
}

}  // namespace

void attend_chunk(const Operands& operands, const Chunk& chunk) {
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  Workspace work{};
  for (int64_t item = 0; item < chunk.count; ++item) {
    const QueryRows& rows = chunk.rows[item];
    const bool same_as_before = item > 0 && rows.head == chunk.rows[item - 1].head &&
                                rows.first_token == chunk.rows[item - 1].first_token;
    if (!same_as_before) {
      work = lay_out(chunk.scratch, rows, head_size);
      const float* keys =
          operands.qkv + rows.first_token * 3 * hidden + hidden + rows.head * head_size;
      pack(operands, keys, rows, work);
      list_all(rows.length, work.everything);
      if (rows.blocks > 0) {
        pool_keys(keys, 3 * hidden, operands.pattern.size, head_size, rows, work.blocks);
      }
    }
    attend_rows(operands, chunk, rows, work);
  }
}

}  // namespace CRISP_ISA
}  // namespace crisp
