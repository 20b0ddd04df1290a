// Products of bfloat16 in vectors, for attend_tile(). Part of kernel.cc, of its compilation for
// AVX512-BF16 alone: one instruction multiplies and adds a pair in each lane, twice as many as one
// for floats does.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel_bf16.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int64_t kPairs = kPanel / 2;  // of a row's numerators with one panel

// Pairs of 16 lanes, into a register for good: see load_once().
__m512bh load_pairs(const uint16_t* from) {
  __m512i pairs = _mm512_loadu_si512(from);
  __asm__("" : "+v"(pairs));
  return (__m512bh)pairs;
}

Floats add_product(Floats sum, __m512bh lanes, uint32_t pair) {
  const __m512bh same = (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(pair));
  return (Floats)_mm512_dpbf16_ps((__m512)sum, lanes, same);
}

// score_panel() of queries [kRows][pairs] and a panel of keys [2][pairs][16 keys].
template <int kRows>
__attribute__((noinline)) void score_pairs(const uint32_t* queries, int64_t pairs,
                                           const uint16_t* keys, float* scores) {
  Floats dots[kRows][2] = {};
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const __m512bh first = load_pairs(keys + pair * kPanel);
    const __m512bh second = load_pairs(keys + (pairs + pair) * kPanel);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const uint32_t query = queries[row * pairs + pair];
      dots[row][0] = add_product(dots[row][0], first, query);
      dots[row][1] = add_product(dots[row][1], second, query);
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(scores + row * kPanel, dots[row][0]);
    store(scores + row * kPanel + kLanes, dots[row][1]);
  }
}

// weigh_values() of numerators [panels][kRows][kPairs] and values [panels][columns / 16][kPairs][16
// columns], `panel_size` bfloat16 a panel.
template <int kRows>
__attribute__((noinline)) void weigh_pairs(const uint32_t* numerators, const int32_t* panels,
                                           int64_t count, const uint16_t* values,
                                           int64_t panel_size, int64_t value_stride, float* sums) {
  Floats total[kRows][2];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    total[row][0] = load(sums + row * value_stride);
    total[row][1] = load(sums + row * value_stride + kLanes);
  }
  for (int64_t slot = 0; slot < count; ++slot, numerators += kRows * kPairs) {
    const uint16_t* value = values + panels[slot] * panel_size;
    for (int64_t pair = 0; pair < kPairs; ++pair, value += kPanel) {
      const __m512bh first = load_pairs(value);
      const __m512bh second = load_pairs(value + kTileSize);
#pragma GCC unroll 8
      for (int row = 0; row < kRows; ++row) {
        const uint32_t numerator = numerators[row * kPairs + pair];
        total[row][0] = add_product(total[row][0], first, numerator);
        total[row][1] = add_product(total[row][1], second, numerator);
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(sums + row * value_stride, total[row][0]);
    store(sums + row * value_stride + kLanes, total[row][1]);
  }
}

// See FloatProducts.
template <int kRows>
class PairProducts {
 public:
  explicit PairProducts(const Tile& tile) : tile_(tile), pairs_(tile.head_size / 2) {
    for (int row = 0; row < kRows; ++row) {
      for (int64_t d = 0; d < tile.head_size; d += kPanel) {
        const float* const query = tile.queries + row * tile.query_stride + d;
        uint32_t* const to = queries_ + row * pairs_ + d / 2;
        store_bf16(reinterpret_cast<uint16_t*>(to), load(query), load(query + kLanes));
      }
    }
  }

  void score(int64_t panel, float* scores) const {
    const uint16_t* const keys = reinterpret_cast<const uint16_t*>(tile_.packed.keys);
    score_pairs<kRows>(queries_, pairs_, keys + panel * kPanel * tile_.head_size, scores);
  }

  void weigh(const float* numerators, const int32_t* panels, int64_t count) {
    for (int64_t row = 0; row < count * kRows; ++row) {
      const float* const own = numerators + row * kPanel;
      uint16_t* const to = reinterpret_cast<uint16_t*>(numerators_ + row * kPairs);
      store_bf16(to, load(own), load(own + kLanes));
    }
    const uint16_t* const values = reinterpret_cast<const uint16_t*>(tile_.packed.values);
    for (int64_t column = 0; column < tile_.head_size; column += kPanel) {
      weigh_pairs<kRows>(numerators_, panels, count, values + column / kLanes * kTileSize,
                         kPanel * tile_.head_size, tile_.packed.value_stride, tile_.sums + column);
    }
  }

 private:
  const Tile& tile_;
  int64_t pairs_;
  alignas(64) uint32_t queries_[kRows * kMostDepths * kTileDepth / 2];
  alignas(64) uint32_t numerators_[kPanelsAtOnce * kRows * kPairs];
};

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
