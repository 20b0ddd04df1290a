// Keys and values in bfloat16, for products of such. Part of kernel.cc, of its compilations for
// processors that have them: with AMX (kernel_bf16_amx.h) or in vectors (kernel_bf16_vectors.h).
//
// Queries, keys, values and the numerators of the softmax are rounded to eight bits; sums, scores
// and everything else are floats, and computed by the functions of kernel_tile.h. Pairs of
// neighbours stand side by side, in tiles of 16 pairs × 16 columns: a tile of AMX, or a vector for
// each pair.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernel_tile.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int64_t kTileDepth = 32;      // of 32 bfloat16
constexpr int64_t kTileSize = 16 * 32;  // bfloat16
constexpr int64_t kMostDepths = 2;      // heads of 32 or 64
static_assert(kPanel == kTileDepth, "a panel of keys is two tiles wide, and one deep");

bool has_tiles(int64_t head_size) {
  return head_size % kTileDepth == 0 && head_size <= kMostDepths * kTileDepth;
}

// 32 floats as bfloat16, to the nearest, ties to even.
void store_bf16(uint16_t* to, Floats first, Floats second) {
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

// Pairs of neighbours in each lane: 16 of the first, and 16 of the second operand above them.
Ints pairs_of(Floats low, Floats high) {
  using Shorts = uint16_t __attribute__((vector_size(CRISP_VECTOR_BYTES / 2)));
  const auto rounded = [](Floats value) {
    return __builtin_convertvector((Shorts)_mm512_cvtneps_pbh((__m512)value), Ints);
  };
  return rounded(low) | rounded(high) << 16;
}

// Keys [rows][head_size], `stride` floats apart, into tiles [rows / 16][head_size / 32][16 pairs of
// dimensions][16 keys][2], with zeros past the last key up to a whole panel.
void pack_keys_bf16(const float* from, int64_t stride, int64_t rows, int64_t head_size,
                    uint16_t* to) {
  for (int64_t first = 0; first < round_up(rows, kPanel); first += kLanes) {
    for (int64_t row = first + kRowsAhead; row < first + kRowsAhead + kLanes && row < rows; ++row) {
      prefetch_row(from + row * stride, head_size);
    }
    for (int64_t d = 0; d < head_size; d += kTileDepth, to += kTileSize) {
      Floats square[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const float* const key = from + (first + lane) * stride + d;
        square[lane] = Floats{};
        if (first + lane < rows) {
          square[lane] = (Floats)_mm512_cvtne2ps_pbh((__m512)load(key + kLanes), (__m512)load(key));
        }
      }
      transpose(square);
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        store(reinterpret_cast<float*>(to) + lane * kLanes, square[lane]);
      }
    }
  }
}

// Where a pair has a bfloat16 that is not finite: the exponent's bits are all set.
Ints not_finite(Ints pairs) {
  constexpr int32_t kExponent = 0x7F80;
  return ((pairs & kExponent) == kExponent) | ((pairs >> 16 & kExponent) == kExponent);
}

// Values the same way into tiles [rows / 32][head_size / 16][16 pairs of keys][16 columns][2].
// Returns whether all are finite, as rounded: the largest floats become infinite.
bool pack_values_bf16(const float* from, int64_t stride, int64_t rows, int64_t head_size,
                      uint16_t* to) {
  Ints strange = {};
  for (int64_t first = 0; first < rows; first += kPanel) {
    for (int64_t key = 0; key < kPanel; key += 2) {
      const int64_t row = first + key;
      const float* const low = from + row * stride;
      for (int64_t ahead = row + kRowsAhead; ahead < row + kRowsAhead + 2 && ahead < rows;
           ++ahead) {
        prefetch_row(from + ahead * stride, head_size);
      }
      for (int64_t d = 0; d < head_size; d += kLanes) {
        const Floats lower = row < rows ? load(low + d) : Floats{};
        const Floats upper = row + 1 < rows ? load(low + stride + d) : Floats{};
        const Ints pairs = pairs_of(lower, upper);
        strange |= not_finite(pairs);
        uint16_t* const at = to + first * head_size + d / kLanes * kTileSize + key * kLanes;
        __builtin_memcpy(at, &pairs, sizeof(pairs));
      }
    }
  }
  return sum_of(strange) == 0;
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
