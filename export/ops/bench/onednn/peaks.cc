#include "peaks.h"

#include <immintrin.h>

namespace linears {
namespace {

// Written as assembly since a compiler would see that every round multiplies the same registers.
// Each accumulator is independent, and there are enough of them to hide the latency (4 cycles of
// vfmadd231ps at 2 a cycle).
constexpr int kAccumulators = 10;

void float32_step(__m256& sum, __m256 a, __m256 b) {
  asm volatile("vfmadd231ps %1, %2, %0" : "+x"(sum) : "x"(a), "x"(b));
}

void int8_step(__m256i& sum, __m256i a, __m256i b, __m256i ones) {
  __m256i pairs;
  asm volatile(
      "vpmaddubsw %3, %2, %0\n\t"
      "vpmaddwd %4, %0, %0\n\t"
      "vpaddd %0, %1, %1"
      : "=&x"(pairs), "+x"(sum)
      : "x"(a), "x"(b), "x"(ones));
}

void int16_step(__m256i& sum, __m256i a, __m256i b) {
  __m256i pairs;
  asm volatile(
      "vpmaddwd %3, %2, %0\n\t"
      "vpaddd %0, %1, %1"
      : "=&x"(pairs), "+x"(sum)
      : "x"(a), "x"(b));
}

}  // namespace

double run_peak(Peak peak, int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
  const __m256 x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);
  __m256i sums[kAccumulators] = {};
  __m256 float_sums[kAccumulators] = {};
  int products = 0;
  switch (peak) {
    case Peak::kFloat32:
      products = 8;
      for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int j = 0; j < kAccumulators; ++j) float32_step(float_sums[j], x, y);
      }
      break;
    case Peak::kInt8:
      products = 32;
      for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int j = 0; j < kAccumulators; ++j) int8_step(sums[j], a, b, ones);
      }
      break;
    case Peak::kInt16:
      products = 16;
      for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 10
        for (int j = 0; j < kAccumulators; ++j) int16_step(sums[j], a, b);
      }
      break;
  }
  return 2.0 * products * kAccumulators * static_cast<double>(rounds);
}

}  // namespace linears
