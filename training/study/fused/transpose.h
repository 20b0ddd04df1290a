// Transposing small matrices: as much work as some of the products, if done number by number.

#pragma once

#include <cstdint>

#include "vectors.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace fused {

#ifdef __AVX512F__

// to [16, 16] = the transposed of from [rows, 16], with 0 for the rows that are not there.
inline void transpose_block(int rows, const float* from, int64_t from_row, float* to,
                            int64_t to_row) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512 block[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i)
    block[i] = i < rows ? _mm512_loadu_ps(from + i * from_row) : __m512{};
#pragma GCC unroll 4
  for (int size = kLanes / 2; size > 0; size /= 2) {
    // In each square of 2 · size rows and columns, the upper right quarter and the lower left one
    // change places. 16 + a lane is that lane of the second vector.
    const __m512i bit = _mm512_set1_epi32(size), second = _mm512_set1_epi32(kLanes);
    const __mmask16 right = _mm512_test_epi32_mask(lane, bit);
    const __m512i upper = _mm512_mask_add_epi32(lane, right, _mm512_xor_epi32(lane, bit), second);
    const __m512i lower = _mm512_mask_add_epi32(_mm512_xor_epi32(lane, bit), right, lane, second);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & size) continue;
      const __m512 above = block[i], below = block[i + size];
      block[i] = _mm512_permutex2var_ps(above, upper, below);
      block[i + size] = _mm512_permutex2var_ps(above, lower, below);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) _mm512_storeu_ps(to + i * to_row, block[i]);
}

#else

inline void transpose_block(int rows, const float* from, int64_t from_row, float* to,
                            int64_t to_row) {
  for (int j = 0; j < kLanes; ++j)
    for (int i = 0; i < kLanes; ++i) to[j * to_row + i] = i < rows ? from[i * from_row + j] : 0;
}

#endif

// to [width, rows] = the transposed of from [rows, width], with 0 up to a whole vector; width a
// multiple of kLanes.
inline void transpose(int rows, int width, const float* from, int64_t from_row, float* to,
                      int64_t to_row) {
  for (int j = 0; j < width; j += kLanes)
    for (int i = 0; i < rows; i += kLanes)
      transpose_block(rows - i, from + i * from_row + j, from_row, to + j * to_row + i, to_row);
}

}  // namespace fused
