// Attention of one tile of query rows: scores, softmax, context, and what keys received. Part of
// kernel.cc: compiled once for each instruction set, private to each.
//
// The scores of a tile stand panel by panel, [panels looked at][rows][kPanel], so that every
// address in the inner loops is a pointer and a constant. Its two products are a parameter: those
// of floats are in kernel_floats.h, those of bfloat16 in kernel_bf16_vectors.h.
#pragma once

#include <stdint.h>

#include "kernel.h"
#include "kernel_panels.h"
#include "kernel_topk.h"
#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int kTileRows = CRISP_TILE_ROWS;
constexpr int64_t kPanelsAtOnce = 16;  // their numerators stay in the fastest cache until used
static_assert(kPanel <= kMaxPanel && kPanel >= kMinPanel && kTileRows <= kMaxTileRows,
              "scratch memory is too small");

struct Packed {
  float* keys;    // [panels][head_size][kPanel], zero past the last key
  float* values;  // [panels][kPanel][value_stride], zero past the last key and past head_size
  int64_t value_stride;
  bool values_finite;
};

struct Tile {
  const float* queries;  // the first row's, `query_stride` floats before the next one's
  int64_t query_stride;
  float* context;
  int64_t context_stride;
  float* received;  // by the sequence's first token; null where nobody asks
  int64_t head_size;
  const Packed& packed;
  const Panels& panels;
  const Sight& sight;
  const QueryRows& rows;
  bool top_k;
  float* scores;
  float* row_scores;  // one row's, in one piece
  float* sums;        // [rows][value_stride]
};

// ---------------------------------------------------------------- scores

// Hides from each row of one panel of scores the keys that it does not see.
template <int kRows>
void hide_unseen(const Sight& sight, int64_t first_key, float* scores) {
  for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
    Ints seen = seen_lanes(sight, 0, first_key + lane);
    for (int64_t row = 0; row < kRows; ++row) {
      if (row > 0 && !sight.same_for_all) seen = seen_lanes(sight, row, first_key + lane);
      float* at = scores + row * kPanel + lane;
      store(at, seen ? load(at) : all(-kInfinity));
    }
  }
}

// Scores of every key that is looked at, -inf for those that a row does not see, and the highest of
// each row.
template <int kRows, typename Products>
void score_keys(const Tile& tile, const Products& products, Floats* highest) {
  for (int64_t slot = 0; slot < tile.panels.count; ++slot) {
    const int64_t first_key = tile.panels.number[slot] * kPanel;
    float* scores = tile.scores + slot * kRows * kPanel;
    products.score(tile.panels.number[slot], scores);
    if (tile.panels.partial[slot]) hide_unseen<kRows>(tile.sight, first_key, scores);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      highest[row] = larger(load(scores + row * kPanel), highest[row]);
      highest[row] = larger(load(scores + row * kPanel + kLanes), highest[row]);
    }
  }
}

// The score that a row's keys must reach.
template <int kRows>
float threshold_of(const Tile& tile, int64_t row, float highest) {
  int64_t columns = 0;
  for (int64_t slot = 0; slot < tile.panels.count; ++slot, columns += kPanel) {
    const float* scores = tile.scores + (slot * kRows + row) * kPanel;
    store(tile.row_scores + columns, load(scores));
    store(tile.row_scores + columns + kLanes, load(scores + kLanes));
  }
  return topk_threshold(tile.row_scores, tile.rows.length, tile.rows, highest);
}

// ---------------------------------------------------------------- softmax

// Replaces one row's scores by the numerators of its softmax, 0 where they miss the threshold, and
// returns what they add to `sum`. A score of NaN, or highest ones of +-inf, make it NaN.
template <int kRows, bool kHasThreshold>
__attribute__((noinline)) Floats numerators(float* scores, int64_t panels, float highest,
                                            float threshold, const Exp& shared, Floats sum) {
  const Exp exp = shared;
  for (int64_t slot = 0; slot < panels; ++slot, scores += kRows * kPanel) {
#pragma GCC unroll 2
    for (int64_t lane = 0; lane < kPanel; lane += kLanes) {
      const Floats score = load(scores + lane);
      Floats numerator = exp(score - highest);
      if (kHasThreshold) numerator = score < threshold ? Floats{} : numerator;
      sum += numerator;
      store(scores + lane, numerator);
    }
  }
  return sum;
}

// ---------------------------------------------------------------- received

// Adds the rows' probabilities to what the keys received: NaN from a row without a softmax, to the
// keys that it sees.
template <int kRows>
void add_received(const Tile& tile, const float* inverse_sum, int64_t rows) {
  bool has_softmax[kRows];
  bool all_have = true;
  for (int64_t row = 0; row < rows; ++row) {
    has_softmax[row] = inverse_sum[row] == inverse_sum[row];
    all_have &= has_softmax[row];
  }
  for (int64_t slot = 0; slot < tile.panels.count; ++slot) {
    const float* numerators = tile.scores + slot * kRows * kPanel;
    const int64_t first_key = tile.panels.number[slot] * kPanel;
    float* received = tile.received + first_key;
    if (all_have) {
      Floats first = load(received);
      Floats second = load(received + kLanes);
#pragma GCC unroll 8
      for (int64_t row = 0; row < rows; ++row) {
        first += inverse_sum[row] * load(numerators + row * kPanel);
        second += inverse_sum[row] * load(numerators + row * kPanel + kLanes);
      }
      store(received, first);
      store(received + kLanes, second);
      continue;
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t key = 0; key < kPanel && first_key + key < tile.rows.length; ++key) {
        if (has_softmax[row]) {
          received[key] += numerators[row * kPanel + key] * inverse_sum[row];
        } else if (sees(tile.sight, row, first_key + key)) {
          received[key] = kNaN;
        }
      }
    }
  }
}

// ---------------------------------------------------------------- all of it

// The context of the first `rows` rows from their sums, and what keys received. Scores are now
// numerators, which add up to `sum_lanes`.
template <int kRows>
void finish_tile(const Tile& tile, const Floats* sum_lanes, int64_t rows) {
  float inverse_sum[kRows];
  for (int64_t row = 0; row < rows; ++row) {
    inverse_sum[row] = 1.0f / sum_of(sum_lanes[row]);
    const float* sums = tile.sums + row * tile.packed.value_stride;
    float* context = tile.context + row * tile.context_stride;
    int64_t d = 0;
    for (; d + kLanes <= tile.head_size; d += kLanes) {
      store(context + d, load(sums + d) * inverse_sum[row]);
    }
    for (; d < tile.head_size; ++d) context[d] = sums[d] * inverse_sum[row];
  }
  if (tile.received != nullptr) add_received<kRows>(tile, inverse_sum, rows);
}

template <template <int> class Products, int kRows>
void attend_whole_tile(const Tile& tile) {
  const int64_t value_stride = tile.packed.value_stride;
  const Exp exp(1.0f / __builtin_sqrtf(static_cast<float>(tile.head_size)));
  Products<kRows> products(tile);

  Floats highest_lanes[kRows];
  for (int row = 0; row < kRows; ++row) highest_lanes[row] = all(-kInfinity);
  score_keys<kRows>(tile, products, highest_lanes);

  const bool has_threshold = tile.top_k && tile.rows.kept < tile.rows.length;
  float highest[kRows];
  float threshold[kRows];
  Floats sum_lanes[kRows];
  for (int row = 0; row < kRows; ++row) {
    highest[row] = maximum_of(highest_lanes[row]);
    threshold[row] = has_threshold ? threshold_of<kRows>(tile, row, highest[row]) : -kInfinity;
    sum_lanes[row] = Floats{};
  }

  for (int64_t i = 0; i < kRows * value_stride; i += kLanes) store(tile.sums + i, Floats{});
  for (int64_t slot = 0; slot < tile.panels.count; slot += kPanelsAtOnce) {
    const int64_t left = tile.panels.count - slot;
    const int64_t count = left < kPanelsAtOnce ? left : kPanelsAtOnce;
    float* scores = tile.scores + slot * kRows * kPanel;
    for (int row = 0; row < kRows; ++row) {
      float* from = scores + row * kPanel;
      sum_lanes[row] = has_threshold ? numerators<kRows, true>(from, count, highest[row],
                                                               threshold[row], exp, sum_lanes[row])
                                     : numerators<kRows, false>(from, count, highest[row], 0.0f,
                                                                exp, sum_lanes[row]);
    }
    products.weigh(scores, tile.panels.number + slot, count);
  }

  finish_tile<kRows>(tile, sum_lanes, kRows);
}

// For a number of rows that is known at run time only.
template <template <int> class Products, int kRows = kTileRows>
void attend_tile(const Tile& tile, int64_t rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return attend_tile<Products, kRows - 1>(tile, rows);
  }
  attend_whole_tile<Products, kRows>(tile);
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
