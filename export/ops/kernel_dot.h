// Sums of products of bytes, by the best means of the instruction set. Part of row_kernel.cc:
// compiled once for each instruction set, private to each.
//
// Without VNNI, products are added up in 16 bits before the sums are widened to 32, and the more of
// them, the faster. Inputs lie in [0, 127] and weights in [-64, 64] (rows.h), so that any four
// products fit: 127 · 64 · 4 = 32,512. Eight of them, a step, fit in nearly every panel of real
// weights, few of which are large; rows.cc looks at each (LinearWeights::deep).
#pragma once

#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernel_isa.h"
#include "kernel_vectors.h"
#include "row_kernel.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int64_t kVectorBytes = CRISP_VECTOR_BYTES;

// Whether the number of products that are added up in 16 bits makes a difference.
#if defined(CRISP_PAIRS)
constexpr bool kHasDepth = true;
#else
constexpr bool kHasDepth = false;
#endif

using Bytes = int8_t __attribute__((vector_size(CRISP_VECTOR_BYTES)));
using UnalignedBytes =
    int8_t __attribute__((vector_size(CRISP_VECTOR_BYTES), aligned(1), may_alias));

Bytes load_bytes(const int8_t* from) { return *reinterpret_cast<const UnalignedBytes*>(from); }

// The same four bytes in every lane.
Bytes four_bytes(const uint8_t* from) {
  int32_t four;
  __builtin_memcpy(&four, from, sizeof(four));
  return reinterpret_cast<Bytes>(four - Ints{});
}

#if defined(CRISP_PAIRS)
// As vectors of 16 bits: the sums of two products each; sums; and in 32 bits, sums of two.
Bytes multiply_pairs(Bytes inputs, Bytes weights) {
#if CRISP_VECTOR_BYTES == 64
  return (Bytes)_mm512_maddubs_epi16((__m512i)inputs, (__m512i)weights);
#else
  return (Bytes)_mm256_maddubs_epi16((__m256i)inputs, (__m256i)weights);
#endif
}

Bytes add_shorts(Bytes first, Bytes second) {
  using Shorts = int16_t __attribute__((vector_size(CRISP_VECTOR_BYTES)));
  return (Bytes)((Shorts)first + (Shorts)second);
}

Ints sum_of_pairs(Bytes pairs) {
#if CRISP_VECTOR_BYTES == 64
  return (Ints)_mm512_madd_epi16((__m512i)pairs, _mm512_set1_epi16(1));
#else
  return (Ints)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi16(1));
#endif
}
#endif

// In each 32-bit lane: sum + the products of kStep inputs with the weights of that lane, which lie
// in kStep / 4 vectors that are `stride` bytes apart. kDeep: the sums of all fit into 16 bits.
template <bool kDeep>
Ints add_dots(Ints sum, const uint8_t* inputs, const int8_t* weights, int64_t stride) {
#if defined(CRISP_VNNI) && CRISP_VECTOR_BYTES == 64
#pragma GCC unroll 4
  for (int i = 0; i < kStep / 4; ++i) {
    sum = (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)four_bytes(inputs + 4 * i),
                                    (__m512i)load_bytes(weights + i * stride));
  }
#elif defined(CRISP_VNNI)
#pragma GCC unroll 4
  for (int i = 0; i < kStep / 4; ++i) {
    sum = (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)four_bytes(inputs + 4 * i),
                                        (__m256i)load_bytes(weights + i * stride));
  }
#elif defined(CRISP_PAIRS)
  constexpr int kTerms = kDeep ? kStep / 4 : 2;  // of two products in each lane of 16 bits
#pragma GCC unroll 2
  for (int first = 0; first < kStep / 4; first += kTerms) {
    Bytes pairs =
        multiply_pairs(four_bytes(inputs + 4 * first), load_bytes(weights + first * stride));
#pragma GCC unroll 4
    for (int i = first + 1; i < first + kTerms; ++i) {
      pairs = add_shorts(
          pairs, multiply_pairs(four_bytes(inputs + 4 * i), load_bytes(weights + i * stride)));
    }
    sum += sum_of_pairs(pairs);
  }
#else
  for (int i = 0; i < kStep / 4; ++i) {
    const Bytes four = four_bytes(inputs + 4 * i);
    const Bytes other = load_bytes(weights + i * stride);
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      for (int64_t byte = 4 * lane; byte < 4 * lane + 4; ++byte) {
        sum[lane] += four[byte] * other[byte];
      }
    }
  }
#endif
  return sum;
}

Ints load_ints(const int32_t* from) {
  Ints value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
