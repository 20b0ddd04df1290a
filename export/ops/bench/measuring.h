// What the microbenchmarks share: the peak of multiply-adds, and the time of the thread.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>

#include "isa.h"

namespace crisp {

// Multiply-adds on so many independent vectors that latency is hidden. Returns operations done.
template <typename Vector>
__attribute__((always_inline)) inline int64_t multiply_add(int64_t rounds) {
  constexpr int kVectors = 12;
  Vector sums[kVectors] = {};
  const Vector one = sums[0] + 1.0f;
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) sums[i] = sums[i] * one + one;
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) asm volatile("" : "+x"(sums[i]));
  }
  return rounds * kVectors * 2 * static_cast<int64_t>(sizeof(Vector) / sizeof(float));
}

template <size_t kBytes>
struct Wide {
  typedef float Vector __attribute__((vector_size(kBytes)));
};

#if defined(__x86_64__)
__attribute__((target("avx512f,fma"))) inline int64_t multiply_add_avx512(int64_t rounds) {
  return multiply_add<Wide<64>::Vector>(rounds);
}
__attribute__((target("avx2,fma"))) inline int64_t multiply_add_avx2(int64_t rounds) {
  return multiply_add<Wide<32>::Vector>(rounds);
}
#endif
inline int64_t multiply_add_baseline(int64_t rounds) {
  return multiply_add<Wide<16>::Vector>(rounds);
}

// Operations a nanosecond: the best of several tries, since others may use the processor too.
inline double peak_of(Isa isa) {
  auto* run = multiply_add_baseline;
#if defined(__x86_64__)
  if (isa != Isa::kBaseline) run = multiply_add_avx2;
  if (isa >= Isa::kAvx512) run = multiply_add_avx512;
#endif
  double best = 0;
  for (int attempt = 0; attempt < 20; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    const int64_t operations = run(200000);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(operations) / taken.count());
  }
  return best;
}

// Time that this thread has computed for, whatever else the processor does.
inline double thread_ns() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

}  // namespace crisp
