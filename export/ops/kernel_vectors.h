// Vectors of floats as wide as the instruction set allows, exp of one, and the transpose of a
// square of them. Part of kernel.cc: compiled once for each instruction set, private to each.
//
// Written with the vector extensions of GCC and Clang, so that one source serves all of them.
#pragma once

#include <stdint.h>

namespace crisp {
namespace CRISP_ISA {
namespace {

using Floats = float __attribute__((vector_size(CRISP_VECTOR_BYTES)));
using Ints = int32_t __attribute__((vector_size(CRISP_VECTOR_BYTES)));
using UnalignedFloats =
    float __attribute__((vector_size(CRISP_VECTOR_BYTES), aligned(sizeof(float)), may_alias));

constexpr int64_t kLanes = CRISP_VECTOR_BYTES / sizeof(float);
constexpr int64_t kPanel = 2 * kLanes;

constexpr float kInfinity = __builtin_inff();
constexpr float kNaN = __builtin_nanf("");

Floats load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }
void store(float* to, Floats value) { *reinterpret_cast<UnalignedFloats*>(to) = value; }
// The same, into a register for good: else GCC loads it again for each use, and loads become what
// limits the loops over several rows.
Floats load_once(const float* from) {
  Floats value = load(from);
#if defined(__AVX512F__)
  __asm__("" : "+v"(value));
#elif defined(__x86_64__)
  __asm__("" : "+x"(value));
#elif defined(__aarch64__)
  __asm__("" : "+w"(value));
#endif
  return value;
}

Floats all(float value) { return value - Floats{}; }

// The larger of two; `b` where either is NaN.
Floats larger(Floats a, Floats b) { return a > b ? a : b; }

Ints lane_numbers() {
  Ints numbers;
  for (int64_t lane = 0; lane < kLanes; ++lane) numbers[lane] = static_cast<int32_t>(lane);
  return numbers;
}

float sum_of(Floats value) {
  float sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += value[lane];
  return sum;
}

float maximum_of(Floats value) {
  float maximum = value[0];
  for (int64_t lane = 1; lane < kLanes; ++lane)
    maximum = value[lane] > maximum ? value[lane] : maximum;
  return maximum;
}

int64_t sum_of(Ints value) {
  int64_t sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += value[lane];
  return sum;
}

// exp(scale x) for scale > 0 and x <= 0, to a relative error of 2e-7 beside that of the product,
// and 0 below 2^-126, where it leaves the normal floats. NaN stays NaN.
//
// scale x log2(e) = n + f with n whole and |f| <= 1/2. 2^f is a polynomial that is exact at 0 and
// off by at most 9e-8 elsewhere (minimax, by Lawson's iteration; 1.6e-7 once in floats).
struct Exp {
  explicit Exp(float scale) : factor(scale * kLog2E), smallest(all(-127.0f / factor)) {}

  Floats operator()(Floats x) const {
    // Adding it rounds to a whole number, kept in the low bits, here with the bias of exponents on
    // top. n = -127 makes the exponent 0, and with it the result.
    constexpr float kShifter = 0x1.8p+23f + 127;
    const Floats clamped = larger(smallest, x);
    const Floats shifted = clamped * factor + kShifter;
    const Floats f = clamped * factor - (shifted - kShifter);
    Floats series = f * 0x1.5bba14p-10f + 0x1.3cea88p-7f;
    series = series * f + 0x1.c6b752p-5f;
    series = series * f + 0x1.ebf9bcp-3f;
    series = series * f + 0x1.62e42ap-1f;
    series = series * f + 1.0f;
    return series * reinterpret_cast<Floats>(reinterpret_cast<Ints>(shifted) << 23);
  }

  static constexpr float kLog2E = 0x1.715476p+0f;
  float factor;
  Floats smallest;
};

#if defined(__clang__)
#define CRISP_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CRISP_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

// The lower, or upper, halves of two vectors, lane by lane in turn.
#if CRISP_VECTOR_BYTES == 16
Floats zip_lower(Floats a, Floats b) { return CRISP_SHUFFLE(a, b, 0, 4, 1, 5); }
Floats zip_upper(Floats a, Floats b) { return CRISP_SHUFFLE(a, b, 2, 6, 3, 7); }
#elif CRISP_VECTOR_BYTES == 32
Floats zip_lower(Floats a, Floats b) { return CRISP_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
Floats zip_upper(Floats a, Floats b) { return CRISP_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
Floats zip_lower(Floats a, Floats b) {
  return CRISP_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
Floats zip_upper(Floats a, Floats b) {
  return CRISP_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#endif
#undef CRISP_SHUFFLE

// Rows become columns. Zipping the first half of the rows with the second moves one bit of the row
// number into the lane number, so after log2(kLanes) times they have changed places.
void transpose(Floats (&square)[kLanes]) {
  for (int64_t times = 1; times < kLanes; times *= 2) {
    Floats zipped[kLanes];
#pragma GCC unroll 8
    for (int64_t row = 0; row < kLanes / 2; ++row) {
      zipped[2 * row] = zip_lower(square[row], square[row + kLanes / 2]);
      zipped[2 * row + 1] = zip_upper(square[row], square[row + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int64_t row = 0; row < kLanes; ++row) square[row] = zipped[row];
  }
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
