// The element types of a graph: float, and half with conversions that round to the nearest even.
#pragma once

#include <stdint.h>
#include <string.h>

#include "block_program.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace crisp {
namespace cuda {

enum class Precision { kFloat, kHalf };

CRISP_HD float to_float(float value) { return value; }

#ifdef __CUDACC__

using Half = __half;
CRISP_HD float to_float(Half value) { return __half2float(value); }
CRISP_HD Half half_from(float value) { return __float2half_rn(value); }

#else

struct Half {
  uint16_t bits;
};

// IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits. Without branches, since the
// tests do little else: the exponent is raised by a product, which also makes subnormals normal.
inline float to_float(Half value) {
  uint32_t bits = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  float magnitude;
  memcpy(&magnitude, &bits, sizeof(magnitude));
  magnitude *= 5.192296858534828e33f;  // 2^112
  memcpy(&bits, &magnitude, sizeof(bits));
  bits |= (value.bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;  // infinity and NaN
  bits |= static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  memcpy(&magnitude, &bits, sizeof(magnitude));
  return magnitude;
}

inline Half half_from(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};   // NaN
  if (bits >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (bits < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, which adding 1/2 rounds to
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, sizeof(bits));
    return {static_cast<uint16_t>(sign | (bits - 0x3f000000u))};
  }
  const uint32_t odd = (bits >> 13) & 1u;
  return {static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + odd) >> 13))};
}

#endif

template <class T>
CRISP_HD T from_float(float value);
template <>
CRISP_HD float from_float<float>(float value) {
  return value;
}
template <>
CRISP_HD Half from_float<Half>(float value) {
  return half_from(value);
}

CRISP_HD bool is_finite(float value) { return value - value == 0.0f; }

// Its bits, such that a larger float has the larger integer; -0 comes before 0. Not for NaN.
CRISP_HD uint32_t sortable(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

CRISP_HD float from_sortable(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// The larger of two; NaN where either is.
CRISP_HD float highest(float a, float b) { return a > b || a != a ? a : b; }

}  // namespace cuda
}  // namespace crisp
