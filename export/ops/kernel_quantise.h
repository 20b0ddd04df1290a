// Rows of floats as bytes. Part of row_kernel.cc: compiled once for each instruction set, private
// to each.
#pragma once

#include <stdint.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernel.h"
#include "kernel_vectors.h"
#include "row_kernel.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

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

// Quantises one row: x ≈ (quantised - zero_point) · scale, with zero exact. Pads with zeros, which
// meet the zeros in the padding of the weights.
void quantise_row(const float* x, int64_t width, uint8_t* quantised, float* scale,
                  float* zero_point) {
  const int64_t whole = width / kLanes * kLanes;
  Floats lowest_lanes = {};
  Floats highest_lanes = {};
  Floats finite = {};  // 0, or NaN: comparisons would lose a NaN
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats value = load(x + i);
    lowest_lanes = value < lowest_lanes ? value : lowest_lanes;
    highest_lanes = value > highest_lanes ? value : highest_lanes;
    finite += value * 0.0f;
  }
  float lowest = -maximum_of(-lowest_lanes);
  float highest = maximum_of(highest_lanes);
  float nan_or_zero = sum_of(finite);
  for (int64_t i = whole; i < width; ++i) {
    lowest = x[i] < lowest ? x[i] : lowest;
    highest = x[i] > highest ? x[i] : highest;
    nan_or_zero += x[i] * 0.0f;
  }
  const float step = (highest - lowest) / kActivationLevels;
  const float usable = step > kSmallestStep ? step : 1.0f;
  const bool is_finite = nan_or_zero == 0.0f;  // else the row comes out as NaN, whatever is here
  const float inverse = is_finite ? 1.0f / usable : 0.0f;
  const int32_t zero = is_finite ? nearest(-lowest * inverse) : 0;
  for (int64_t i = 0; i < whole; i += kLanes) {
    // Both may be rounded up, to 128 together.
    store_bytes(quantised + i, at_most(nearest(load(x + i) * inverse) + zero, kActivationLevels));
  }
  for (int64_t i = whole; i < width; ++i) {
    const int32_t value = nearest(x[i] * inverse) + zero;
    quantised[i] = static_cast<uint8_t>(value < kActivationLevels ? value : kActivationLevels);
  }
  for (int64_t i = width; i < round_up(width, kStep); ++i) quantised[i] = 0;
  *scale = usable + nan_or_zero;
  *zero_point = static_cast<float>(zero);
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
