// Sums of products of bytes, by the best means of the instruction set. Part of row_kernel.cc:
// compiled once for each instruction set, private to each.
//
// The left factors lie in [0, 127] and the right ones in [-64, 64] (rows.h), so that the sum of
// four products, 127 · 64 · 4 = 32,512, fits into 16 bits.
#pragma once

#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int64_t kVectorBytes = CRISP_VECTOR_BYTES;

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

// In each 32-bit lane: sum + the four products of first and first_weights + those of the second.
Ints add_dots(Ints sum, Bytes first, Bytes first_weights, Bytes second, Bytes second_weights) {
#if defined(__AVX512VNNI__) && CRISP_VECTOR_BYTES == 64
  const __m512i once = _mm512_dpbusd_epi32((__m512i)sum, (__m512i)first, (__m512i)first_weights);
  return (Ints)_mm512_dpbusd_epi32(once, (__m512i)second, (__m512i)second_weights);
#elif defined(__AVXVNNI__) && CRISP_VECTOR_BYTES == 32
  const __m256i once =
      _mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)first, (__m256i)first_weights);
  return (Ints)_mm256_dpbusd_avx_epi32(once, (__m256i)second, (__m256i)second_weights);
#elif defined(__AVX512BW__) && CRISP_VECTOR_BYTES == 64
  const __m512i pairs =
      _mm512_add_epi16(_mm512_maddubs_epi16((__m512i)first, (__m512i)first_weights),
                       _mm512_maddubs_epi16((__m512i)second, (__m512i)second_weights));
  return sum + (Ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif defined(__AVX2__) && CRISP_VECTOR_BYTES == 32
  const __m256i pairs =
      _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)first, (__m256i)first_weights),
                       _mm256_maddubs_epi16((__m256i)second, (__m256i)second_weights));
  return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    for (int64_t byte = 4 * lane; byte < 4 * lane + 4; ++byte) {
      sum[lane] += first[byte] * first_weights[byte] + second[byte] * second_weights[byte];
    }
  }
  return sum;
#endif
}

// Nearest integers, ties to even; |x| below 2^22. Anything for NaN.
Ints nearest(Floats x) {
  constexpr float kShifter = 0x1.8p+23f;  // adding it leaves the integer in the low bits
  return reinterpret_cast<Ints>(x + kShifter) - reinterpret_cast<Ints>(all(kShifter));
}

int32_t nearest(float x) {
  constexpr float kShifter = 0x1.8p+23f;
  const float shifted = x + kShifter;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  return bits - 0x4B400000;
}

Ints at_most(Ints value, int32_t highest) {
  const Ints limit = highest - Ints{};
  return value < limit ? value : limit;
}

// The low byte of each lane.
void store_bytes(uint8_t* to, Ints value) {
#if defined(__AVX2__) && CRISP_VECTOR_BYTES == 32
  const __m256i low_bytes = _mm256_set1_epi32(0x0C080400);
  const __m256i bytes = _mm256_shuffle_epi8((__m256i)value, low_bytes);
  const __m128i joined =
      _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), joined);
#else
  using Narrow = uint8_t __attribute__((vector_size(CRISP_VECTOR_BYTES / 4)));
  const Narrow narrow = __builtin_convertvector(value, Narrow);
  __builtin_memcpy(to, &narrow, sizeof(narrow));
#endif
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
