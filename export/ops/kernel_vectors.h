// Vectors of floats as wide as the instruction set allows, and exp of one. Part of kernel.cc:
// compiled once for each instruction set, private to each.
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
Floats all(float value) { return value - Floats{}; }

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

// exp(x) for x <= 0 to a relative error of 2e-7, and 0 below -87.3, where e^x leaves the normal
// floats. x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of e^r to r^7, whose remainder
// is below 6e-9.
Floats exp_of_nonpositive(Floats x) {
  constexpr float kSmallest = -87.3f;
  constexpr float kLog2E = 0x1.715476p+0f;
  constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: its product with n is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  constexpr float kShifter = 0x1.8p+23f;  // adding it rounds to an integer, kept in the low bits
  const Floats clamped = x < kSmallest ? all(kSmallest) : x;
  const Floats shifted = clamped * kLog2E + kShifter;
  const Floats n = shifted - kShifter;
  const Floats r = (clamped - n * kLn2High) - n * kLn2Low;
  Floats series = r * (1.0f / 5040) + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 1.0f / 2;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const Ints exponent = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(all(kShifter));
  const Floats power_of_two = reinterpret_cast<Floats>((exponent + 127) << 23);
  return x < kSmallest ? Floats{} : series * power_of_two;
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
