// The key blocks that a block of queries chooses by pooled scores. Part of kernel.cc: compiled once
// for each instruction set, private to each.
#pragma once

#include <stdint.h>

#include "kernel.h"
#include "kernel_pack.h"
#include "kernel_topk.h"
#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

// The blocks of one sequence and head.
struct Blocks {
  float* pooled_keys;  // mean key of each block, in panels
  float* mean;         // [head_size], one mean on its way
  float* scores;       // [blocks], padded to whole panels
  int32_t* kept;       // [blocks], what choose_blocks() leaves
};

int64_t block_rows(const QueryRows& rows, int64_t size, int64_t block) {
  const int64_t left = rows.length - block * size;
  return left < size ? left : size;
}

// `keys`: the sequence's first key, `stride` floats before the next one.
void pool_keys(const float* keys, int64_t stride, int64_t size, int64_t head_size,
               const QueryRows& rows, Blocks& blocks) {
  for (int64_t block = 0; block < round_up(rows.blocks, kPanel); ++block) {
    float* to = blocks.pooled_keys + block / kPanel * kPanel * head_size + block % kPanel;
    if (block < rows.blocks) {
      mean_of_rows(keys + block * size * stride, stride, block_rows(rows, size, block), head_size,
                   blocks.mean);
    }
    for (int64_t d = 0; d < head_size; ++d) {
      to[d * kPanel] = block < rows.blocks ? blocks.mean[d] : 0.0f;
    }
  }
}

// Fills `kept` for the queries of `own`; returns whether all blocks are. `queries`: the block's
// first, `stride` floats before the next one.
bool choose_blocks(const float* queries, int64_t stride, int64_t size, int64_t head_size,
                   const QueryRows& rows, int64_t own, Blocks& blocks) {
  mean_of_rows(queries, stride, block_rows(rows, size, own), head_size, blocks.mean);
  Floats highest = all(-kInfinity);
  Ints strange = {};
  for (int64_t block = 0; block < round_up(rows.blocks, kPanel); block += kLanes) {
    const float* pooled = blocks.pooled_keys + block / kPanel * kPanel * head_size + block % kPanel;
    Floats dots = {};
    for (int64_t d = 0; d < head_size; ++d) dots += blocks.mean[d] * load(pooled + d * kPanel);
    // The scale would change no order, so it is left out.
    const Ints exists =
        lane_numbers() + static_cast<int32_t>(block) < static_cast<int32_t>(rows.blocks);
    dots = exists ? dots : all(-kInfinity);
    strange |= dots != dots;
    highest = larger(dots, highest);
    store(blocks.scores + block, dots);
  }
  // Scores among which there is a NaN have no order: keep them all, so that it stays visible.
  const float threshold =
      sum_of(strange) != 0 ? kNaN
                           : topk_threshold(blocks.scores, rows.blocks, rows, maximum_of(highest));
  bool everything = true;
  for (int64_t block = 0; block < rows.blocks; ++block) {
    blocks.kept[block] = !(blocks.scores[block] < threshold) || block == own || block == 0;
    everything &= blocks.kept[block] != 0;
  }
  return everything;
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
