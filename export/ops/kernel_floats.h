// Products of floats, for attend_tile(). Part of kernel.cc: compiled once for each instruction set,
// private to each.
#pragma once

#include <stdint.h>

#include "kernel_tile.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

// Dot products of the rows with one panel of keys. Not scaled yet, so that integers stay exact and
// equal dot products tie. This and the other inner loops are functions of their own because they
// need all registers: inlined, constants of their surroundings would take some of them.
template <int kRows>
__attribute__((noinline)) void score_panel(const float* queries, int64_t query_stride,
                                           const float* keys, int64_t head_size, float* scores) {
  Floats dots[kRows][2] = {};
  for (int64_t d = 0; d < head_size; ++d) {
    const Floats first = load_once(keys + d * kPanel);
    const Floats second = load_once(keys + d * kPanel + kLanes);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const float query = queries[row * query_stride + d];
      dots[row][0] += query * first;
      dots[row][1] += query * second;
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(scores + row * kPanel, dots[row][0]);
    store(scores + row * kPanel + kLanes, dots[row][1]);
  }
}

// Adds numerators x values to kPanel columns of the rows' sums.
template <int kRows>
__attribute__((noinline)) void weigh_values(const float* numerators, const int32_t* panels,
                                            int64_t count, const float* values,
                                            int64_t value_stride, float* sums) {
  Floats total[kRows][2];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    total[row][0] = load(sums + row * value_stride);
    total[row][1] = load(sums + row * value_stride + kLanes);
  }
  for (int64_t slot = 0; slot < count; ++slot, numerators += kRows * kPanel) {
    const float* value = values + panels[slot] * kPanel * value_stride;
    for (int64_t key = 0; key < kPanel; ++key, value += value_stride) {
      const Floats first = load_once(value);
      const Floats second = load_once(value + kLanes);
#pragma GCC unroll 8
      for (int row = 0; row < kRows; ++row) {
        total[row][0] += numerators[row * kPanel + key] * first;
        total[row][1] += numerators[row * kPanel + key] * second;
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(sums + row * value_stride, total[row][0]);
    store(sums + row * value_stride + kLanes, total[row][1]);
  }
}

// The same where some value is not finite: a key whose numerator is zero contributes nothing,
// whatever its value, and 0 x inf would be NaN.
template <int kRows>
void weigh_nonfinite_values(const float* numerators, const int32_t* panels, int64_t count,
                            const float* values, int64_t value_stride, float* sums) {
  for (int64_t slot = 0; slot < count; ++slot, numerators += kRows * kPanel) {
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t key = 0; key < kPanel; ++key) {
        const float numerator = numerators[row * kPanel + key];
        if (numerator == 0.0f) continue;
        const float* value = values + (panels[slot] * kPanel + key) * value_stride;
        for (int64_t d = 0; d < value_stride; ++d)
          sums[row * value_stride + d] += numerator * value[d];
      }
    }
  }
}

// The two products of a tile, of floats.
template <int kRows>
struct FloatProducts {
  explicit FloatProducts(const Tile& of) : tile(of) {}

  // Scores [kRows][kPanel] of one panel of keys.
  void score(int64_t panel, float* scores) const {
    score_panel<kRows>(tile.queries, tile.query_stride,
                       tile.packed.keys + panel * kPanel * tile.head_size, tile.head_size, scores);
  }

  // Adds numerators [count][kRows][kPanel] x values of those panels to the sums.
  void weigh(const float* numerators, const int32_t* panels, int64_t count) const {
    const int64_t value_stride = tile.packed.value_stride;
    if (!tile.packed.values_finite) {
      return weigh_nonfinite_values<kRows>(numerators, panels, count, tile.packed.values,
                                           value_stride, tile.sums);
    }
    for (int64_t column = 0; column < value_stride; column += kPanel) {
      weigh_values<kRows>(numerators, panels, count, tile.packed.values + column, value_stride,
                          tile.sums + column);
    }
  }

  const Tile& tile;
};

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
