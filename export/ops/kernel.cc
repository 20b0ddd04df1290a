// The CPU kernel of crisp::SparseAttention: one source for every instruction set.
//
// CMakeLists.txt compiles it once for each instruction set, with CRISP_ISA as the namespace,
// CRISP_VECTOR_BYTES as the width of a vector and CRISP_TILE_ROWS as the number of query rows whose
// accumulators fit in the registers. kernel.h says what this file must not use.
//
// For one sequence and head, keys are packed into panels of two vectors,
// [panel][head_size][kPanel], and values into rows padded to a multiple of kPanel. Then, tile of
// rows by tile of rows:
//   scores      every visible key's, a panel at a time, rows x two vectors in registers
//   softmax     a row at a time: mask, maximum, top-k threshold, exp, sum
//   context     probabilities x values, again rows x two vectors in registers
#include "kernel.h"

#include <stdint.h>

#include "kernel_topk.h"
#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int kTileRows = CRISP_TILE_ROWS;
static_assert(kPanel <= kMaxPanel && kTileRows <= kMaxTileRows, "scratch memory is too small");

// ---------------------------------------------------------------- packing

struct Packed {
  float* keys;    // [panels][head_size][kPanel], zero past the last key
  float* values;  // [length][value_stride], zero past head_size
  int64_t value_stride;
  bool values_finite;
};

void pack(const Operands& operands, const QueryRows& rows, Packed& packed) {
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  const float* keys = operands.qkv + rows.first_token * 3 * hidden + hidden + rows.head * head_size;
  for (int64_t key = 0; key < round_up(rows.length, kPanel); ++key) {
    float* to = packed.keys + key / kPanel * kPanel * head_size + key % kPanel;
    if (key < rows.length) {
      const float* from = keys + key * 3 * hidden;
      for (int64_t d = 0; d < head_size; ++d) to[d * kPanel] = from[d];
    } else {
      for (int64_t d = 0; d < head_size; ++d) to[d * kPanel] = 0.0f;
    }
  }
  packed.values_finite = true;
  for (int64_t key = 0; key < rows.length; ++key) {
    float* to = packed.values + key * packed.value_stride;
    const float* from = keys + hidden + key * 3 * hidden;
    bool finite = true;
    for (int64_t d = 0; d < head_size; ++d) {
      to[d] = from[d];
      finite &= from[d] - from[d] == 0.0f;
    }
    for (int64_t d = head_size; d < packed.value_stride; ++d) to[d] = 0.0f;
    packed.values_finite &= finite;
  }
}

// ---------------------------------------------------------------- the keys that a tile looks at

struct Span {
  int64_t begin;  // multiples of kPanel
  int64_t end;
};

// What the rows of one tile see: at most two spans, in order and apart from each other.
struct Spans {
  Span span[2];
  int count;
};

Spans spans_of(const VisibleKeys* visible, int64_t rows) {
  VisibleKeys all = visible[0];
  for (int64_t row = 1; row < rows; ++row) {
    const VisibleKeys& one = visible[row];
    if (one.globals_end > all.globals_end) all.globals_end = one.globals_end;
    if (one.begin < all.begin) all.begin = one.begin;
    if (one.end > all.end) all.end = one.end;
  }
  const Span globals = {0, round_up(all.globals_end, kPanel)};
  const Span local = {all.begin / kPanel * kPanel, round_up(all.end, kPanel)};
  if (globals.end < local.begin && globals.end > 0) return {{globals, local}, 2};
  if (globals.end == 0) return {{local, {}}, 1};
  return {{{0, local.end > globals.end ? local.end : globals.end}, {}}, 1};
}

// ---------------------------------------------------------------- scores and context, in tiles

// Scores of one panel for kRows query rows: dot products first and then the scale, so that integers
// stay exact and equal dot products tie.
template <int kRows>
void score_panel(const float* queries, int64_t query_stride, const float* panel, int64_t head_size,
                 float scale, float* scores, int64_t score_stride) {
  Floats dots[kRows][2] = {};
  for (int64_t d = 0; d < head_size; ++d) {
    const Floats first = load(panel + d * kPanel);
    const Floats second = load(panel + d * kPanel + kLanes);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const float query = queries[row * query_stride + d];
      dots[row][0] += query * first;
      dots[row][1] += query * second;
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(scores + row * score_stride, dots[row][0] * scale);
    store(scores + row * score_stride + kLanes, dots[row][1] * scale);
  }
}

// Columns [0, kPanel) of the context of kRows query rows, into sums[row][kPanel].
template <int kRows>
void weigh_values(const float* probabilities, int64_t score_stride, const float* values,
                  int64_t value_stride, const Spans& spans, int64_t length, float* sums) {
  Floats total[kRows][2] = {};
  for (int s = 0; s < spans.count; ++s) {
    const int64_t end = spans.span[s].end < length ? spans.span[s].end : length;
    for (int64_t key = spans.span[s].begin; key < end; ++key) {
      const Floats first = load(values + key * value_stride);
      const Floats second = load(values + key * value_stride + kLanes);
#pragma GCC unroll 8
      for (int row = 0; row < kRows; ++row) {
        const float probability = probabilities[row * score_stride + key];
        total[row][0] += probability * first;
        total[row][1] += probability * second;
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(sums + row * kPanel, total[row][0]);
    store(sums + row * kPanel + kLanes, total[row][1]);
  }
}

// The two above for a number of rows that is known at run time only.
template <int kRows = kTileRows>
void score_panel(int64_t rows, const float* queries, int64_t query_stride, const float* panel,
                 int64_t head_size, float scale, float* scores, int64_t score_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return score_panel<kRows - 1>(rows, queries, query_stride, panel, head_size, scale, scores,
                                    score_stride);
    }
  }
  score_panel<kRows>(queries, query_stride, panel, head_size, scale, scores, score_stride);
}

template <int kRows = kTileRows>
void weigh_values(int64_t rows, const float* probabilities, int64_t score_stride,
                  const float* values, int64_t value_stride, const Spans& spans, int64_t length,
                  float* sums) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return weigh_values<kRows - 1>(rows, probabilities, score_stride, values, value_stride, spans,
                                     length, sums);
    }
  }
  weigh_values<kRows>(probabilities, score_stride, values, value_stride, spans, length, sums);
}

// As weigh_values for one row, but a key of probability zero contributes nothing, whatever its
// value: 0 x inf would be NaN.
void weigh_nonfinite_values(const float* probabilities, const float* values, int64_t value_stride,
                            const Spans& spans, int64_t length, float* sums) {
  for (int64_t d = 0; d < kPanel; ++d) sums[d] = 0;
  for (int s = 0; s < spans.count; ++s) {
    const int64_t end = spans.span[s].end < length ? spans.span[s].end : length;
    for (int64_t key = spans.span[s].begin; key < end; ++key) {
      if (probabilities[key] == 0.0f) continue;
      for (int64_t d = 0; d < kPanel; ++d) {
        sums[d] += probabilities[key] * values[key * value_stride + d];
      }
    }
  }
}

// ---------------------------------------------------------------- softmax

// Replaces the scores of one row by exp(score - highest), 0 for keys that are not visible or not
// kept, and returns their sum; NaN, with zeros in place of the scores, where the row has no
// softmax.
float softmax_numerators(float* scores, const Spans& spans, const VisibleKeys& visible,
                         const QueryRows& rows) {
  const Ints lanes = lane_numbers();
  Floats highest_lanes = all(-kInfinity);
  Ints is_nan = {};
  for (int s = 0; s < spans.count; ++s) {
    for (int64_t column = spans.span[s].begin; column < spans.span[s].end; column += kLanes) {
      Floats score = load(scores + column);
      if (column < visible.begin || column + kLanes > visible.end) {
        const Ints key = lanes + static_cast<int32_t>(column);
        const Ints seen = (key < static_cast<int32_t>(visible.globals_end)) |
                          ((key >= static_cast<int32_t>(visible.begin)) &
                           (key < static_cast<int32_t>(visible.end)));
        score = seen ? score : all(-kInfinity);
        store(scores + column, score);
      }
      is_nan |= score != score;
      highest_lanes = score > highest_lanes ? score : highest_lanes;
    }
  }
  const float highest = maximum_of(highest_lanes);
  const bool has_softmax = sum_of(is_nan) == 0 && highest - highest == 0.0f;
  const float threshold =
      has_softmax && rows.kept < rows.length ? topk_threshold(scores, rows, highest) : -kInfinity;
  Floats sum = {};
  for (int s = 0; s < spans.count; ++s) {
    for (int64_t column = spans.span[s].begin; column < spans.span[s].end; column += kLanes) {
      Floats numerator = {};
      if (has_softmax) {
        const Floats score = load(scores + column);
        numerator = score >= threshold ? exp_of_nonpositive(score - highest) : Floats{};
      }
      sum += numerator;
      store(scores + column, numerator);
    }
  }
  return has_softmax ? sum_of(sum) : kNaN;
}

// Adds the probabilities of one row to what its keys received; see sparse_attention.h for NaN.
void add_received(const float* numerators, float inverse_sum, const Spans& spans,
                  const VisibleKeys& visible, int64_t length, float* received) {
  for (int s = 0; s < spans.count; ++s) {
    const int64_t end = spans.span[s].end < length ? spans.span[s].end : length;
    for (int64_t key = spans.span[s].begin; key < end; ++key) {
      const bool seen = key < visible.globals_end || (key >= visible.begin && key < visible.end);
      if (seen) received[key] += numerators[key] * inverse_sum;
    }
  }
}

// ---------------------------------------------------------------- one tile of rows

void attend_tile(const Operands& operands, const Chunk& chunk, const QueryRows& rows,
                 const Packed& packed, int64_t tile_begin, int64_t tile_rows, float* scores) {
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  const int64_t score_stride = round_up(rows.length, kPanel);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_size));
  const int64_t token = rows.first_token + tile_begin;
  const float* queries = operands.qkv + token * 3 * hidden + rows.head * head_size;
  float* context = operands.context + token * hidden + rows.head * head_size;

  VisibleKeys visible[kTileRows] = {};
  for (int64_t row = 0; row < tile_rows; ++row) {
    visible[row] = visible_keys(operands.pattern, tile_begin + row, rows.length);
  }
  const Spans spans = spans_of(visible, tile_rows);

  for (int s = 0; s < spans.count; ++s) {
    for (int64_t key = spans.span[s].begin; key < spans.span[s].end; key += kPanel) {
      score_panel(tile_rows, queries, 3 * hidden, packed.keys + key * head_size, head_size, scale,
                  scores + key, score_stride);
    }
  }

  float inverse_sum[kTileRows];
  for (int64_t row = 0; row < tile_rows; ++row) {
    float* row_scores = scores + row * score_stride;
    inverse_sum[row] = 1.0f / softmax_numerators(row_scores, spans, visible[row], rows);
    if (chunk.received != nullptr) {
      add_received(row_scores, inverse_sum[row], spans, visible[row], rows.length,
                   chunk.received + (rows.first_token - chunk.received_begin));
    }
  }

  float sums[kTileRows * kPanel];
  for (int64_t column = 0; column < head_size; column += kPanel) {
    const float* values = packed.values + column;
    if (packed.values_finite) {
      weigh_values(tile_rows, scores, score_stride, values, packed.value_stride, spans, rows.length,
                   sums);
    } else {
      for (int64_t row = 0; row < tile_rows; ++row) {
        weigh_nonfinite_values(scores + row * score_stride, values, packed.value_stride, spans,
                               rows.length, sums + row * kPanel);
      }
    }
    const int64_t width = head_size - column < kPanel ? head_size - column : kPanel;
    for (int64_t row = 0; row < tile_rows; ++row) {
      for (int64_t d = 0; d < width; ++d) {
        context[row * hidden + column + d] = sums[row * kPanel + d] * inverse_sum[row];
      }
    }
  }
}

}  // namespace

void attend_chunk(const Operands& operands, const Chunk& chunk) {
  Packed packed;
  packed.value_stride = round_up(operands.head_size, kPanel);
  float* scores = nullptr;
  for (int64_t item = 0; item < chunk.count; ++item) {
    const QueryRows& rows = chunk.rows[item];
    const bool same_as_before = item > 0 && rows.head == chunk.rows[item - 1].head &&
                                rows.first_token == chunk.rows[item - 1].first_token;
    if (!same_as_before) {
      packed.keys = chunk.scratch;
      packed.values = packed.keys + round_up(rows.length, kPanel) * operands.head_size;
      scores = packed.values + rows.length * packed.value_stride;
      pack(operands, rows, packed);
    }
    for (int64_t row = rows.row_begin; row < rows.row_end; row += kTileRows) {
      const int64_t left = rows.row_end - row;
      attend_tile(operands, chunk, rows, packed, row, left < kTileRows ? left : kTileRows, scores);
    }
  }
}

}  // namespace CRISP_ISA
}  // namespace crisp
