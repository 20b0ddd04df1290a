// Matrix products of small matrices that stay in the cache, in float32.

#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"

namespace fused {

// Functions that take these are to be inlined where they are called often: what is passed in memory
// is waited for.
struct Left {  // element (i, j) stands at data[i * row + j * column]
  const float* data;
  int64_t row, column = 1;
};

struct Start {  // what the product is added to: a matrix, one row for all, or nothing
  const float* data = nullptr;
  int64_t row = 0;
};

template <int R, int V>
[[gnu::always_inline]] inline void tile(Left a, const float* b, int64_t b_row, float* c,
                                        int64_t c_row, int depth, Start start) {
  Floats sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      sum[r][v] = start.data ? load(start.data + r * start.row + v * kLanes) : Floats{};
  for (int k = 0; k < depth; ++k) {
    Floats right[V];
    for (int v = 0; v < V; ++v) right[v] = load(b + k * b_row + v * kLanes);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) sum[r][v] += a.data[r * a.row + k * a.column] * right[v];
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(c + r * c_row + v * kLanes, sum[r][v]);
}

// A tile of `rows` rows, at most R.
template <int R, int V>
[[gnu::always_inline]] inline void tile_of(int rows, Left a, const float* b, int64_t b_row,
                                           float* c, int64_t c_row, int depth, Start start) {
  if (rows == R) return tile<R, V>(a, b, b_row, c, c_row, depth, start);
  if constexpr (R > 1) tile_of<R - 1, V>(rows, a, b, b_row, c, c_row, depth, start);
}

// All rows, in tiles as even as can be: one of a row or two takes as long as one of four, since
// each of its sums waits for itself.
template <int V>
inline void columns(int rows, Left a, const float* b, int64_t b_row, float* c, int64_t c_row,
                    int depth, Start start) {
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  for (int i = 0, first = 0; i < tiles; ++i) {
    const int next = rows * (i + 1) / tiles;
    const Left part{a.data + first * a.row, a.row, a.column};
    const Start from{start.data ? start.data + first * start.row : nullptr, start.row};
    tile_of<kTileRows, V>(next - first, part, b, b_row, c + first * c_row, c_row, depth, from);
    first = next;
  }
}

// c [rows, width] = start + a [rows, depth] · b [depth, width]; width a multiple of kLanes.
inline void multiply(int rows, int width, int depth, Left a, const float* b, int64_t b_row,
                     float* c, int64_t c_row, Start start = {}) {
  for (int done = 0; done < width;) {
    const Start from{start.data ? start.data + done : nullptr, start.row};
    const bool two = done + 2 * kLanes <= width;
    (two ? columns<2> : columns<1>)(rows, a, b + done, b_row, c + done, c_row, depth, from);
    done += two ? 2 * kLanes : kLanes;
  }
}

}  // namespace fused
