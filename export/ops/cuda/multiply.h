// Products of small matrices by one warp: C [16, 8·n] += A [16, depth] · Bᵀ, B [8·n, depth].
//
// Each lane holds four elements of every 16 x 8 tile of C, in the layout of the tensor cores'
// mma.sync.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): with group = lane / 4 and
// member = lane % 4,
//   [0], [1]   row group,     columns 2 · member and the next
//   [2], [3]   row group + 8, the same columns
// Halves go through the tensor cores, with sums in float; floats through fused multiply-adds, since
// TF32 would keep 10 bits of each factor. The host computes each lane's elements from the same
// memory. Order and rounding depend on nothing but the operands, so that a product computed twice
// is the same to the last bit.
#pragma once

#include "block_program.h"
#include "half.h"

namespace crisp {
namespace cuda {

CRISP_HD int lane_row(int lane, int element) { return lane / 4 + (element < 2 ? 0 : 8); }
CRISP_HD int lane_column(int lane, int element) { return lane % 4 * 2 + element % 2; }

constexpr int kMmaDepth = 16;

// Of which two neighbours along the depth a lane's registers of A and B hold the first.
CRISP_HD int fragment_a_row(int lane, int index) { return lane / 4 + (index % 2 ? 8 : 0); }
CRISP_HD int fragment_b_row(int lane) { return lane / 4; }
CRISP_HD int fragment_depth(int lane, int upper) { return lane % 4 * 2 + (upper ? 8 : 0); }

#ifdef __CUDA_ARCH__

__device__ __forceinline__ uint32_t half_pair(const Half* at) {
  return *reinterpret_cast<const uint32_t*>(at);
}
__device__ __forceinline__ uint32_t half_pair(const float* at) {
  const float2 pair = *reinterpret_cast<const float2*>(at);
  const __half2 rounded = __floats2half2_rn(pair.x, pair.y);
  return *reinterpret_cast<const uint32_t*>(&rounded);
}

__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else

inline float rounded_to_half(Half value) { return to_float(value); }
inline float rounded_to_half(float value) { return to_float(from_float<Half>(value)); }

#endif

// A and B lie row by row, `a_stride` and `b_stride` elements apart, aligned to 16 bytes. Of A only
// the rows up to `last_row` are read; the others of C are then no numbers of use. A may be float
// where B is half: it is rounded to half on the way.
template <int kTiles, int kDepth, class A>
CRISP_HD void multiply_add(int lane, const A* a, int a_stride, int last_row, const Half* b,
                           int b_stride, float (&c)[kTiles][4]) {
  static_assert(kDepth % kMmaDepth == 0, "whole steps of the tensor cores");
#ifdef __CUDA_ARCH__
#pragma unroll
  for (int depth = 0; depth < kDepth; depth += kMmaDepth) {
    uint32_t of_a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = least(fragment_a_row(lane, i), last_row);
      of_a[i] = half_pair(a + row * a_stride + depth + fragment_depth(lane, i / 2));
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const Half* const row = b + (tile * 8 + fragment_b_row(lane)) * b_stride + depth;
      const uint32_t of_b[2] = {half_pair(row + fragment_depth(lane, 0)),
                                half_pair(row + fragment_depth(lane, 1))};
      mma(c[tile], of_a, of_b);
    }
  }
#else
  for (int half = 0; half < 2; ++half) {
    float x[kDepth];
    const A* const row = a + least(lane_row(lane, 2 * half), last_row) * a_stride;
    for (int depth = 0; depth < kDepth; ++depth) x[depth] = rounded_to_half(row[depth]);
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int element = 2 * half; element < 2 * half + 2; ++element) {
        const Half* const y = b + (tile * 8 + lane_column(lane, element)) * b_stride;
        for (int depth = 0; depth < kDepth; ++depth)
          c[tile][element] += x[depth] * to_float(y[depth]);
      }
    }
  }
#endif
}

template <int kTiles, int kDepth>
CRISP_HD void multiply_add(int lane, const float* a, int a_stride, int last_row, const float* b,
                           int b_stride, float (&c)[kTiles][4]) {
#ifdef __CUDA_ARCH__
  const float* const low = a + least(lane_row(lane, 0), last_row) * a_stride;
  const float* const high = a + least(lane_row(lane, 2), last_row) * a_stride;
#pragma unroll 2
  for (int depth = 0; depth < kDepth; depth += 4) {
    const float4 x[2] = {*reinterpret_cast<const float4*>(low + depth),
                         *reinterpret_cast<const float4*>(high + depth)};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const float* const row = b + (tile * 8 + lane_column(lane, element)) * b_stride + depth;
        const float4 y = *reinterpret_cast<const float4*>(row);
        float& sum = c[tile][element];
        sum = __fmaf_rn(x[element / 2].x, y.x, sum);
        sum = __fmaf_rn(x[element / 2].y, y.y, sum);
        sum = __fmaf_rn(x[element / 2].z, y.z, sum);
        sum = __fmaf_rn(x[element / 2].w, y.w, sum);
      }
    }
  }
#else
  for (int tile = 0; tile < kTiles; ++tile) {
    for (int element = 0; element < 4; ++element) {
      const float* const x = a + least(lane_row(lane, element), last_row) * a_stride;
      const float* const y = b + (tile * 8 + lane_column(lane, element)) * b_stride;
      for (int depth = 0; depth < kDepth; ++depth) c[tile][element] += x[depth] * y[depth];
    }
  }
#endif
}

// The same where a zero in A counts for nothing even against infinity or NaN in B: `b` holds some.
template <int kTiles, int kDepth, class A, class T>
CRISP_HD void multiply_add_nonzero(int lane, const A* a, int a_stride, int last_row, const T* b,
                                   int b_stride, float (&c)[kTiles][4]) {
  CRISP_NO_UNROLL
  for (int depth = 0; depth < kDepth; ++depth) {
    const float factors[2] = {to_float(a[least(lane_row(lane, 0), last_row) * a_stride + depth]),
                              to_float(a[least(lane_row(lane, 2), last_row) * a_stride + depth])};
    CRISP_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      CRISP_UNROLL
      for (int element = 0; element < 4; ++element) {
        const float factor = factors[element / 2];
        const float value = to_float(b[(tile * 8 + lane_column(lane, element)) * b_stride + depth]);
        if (factor != 0.0f) c[tile][element] += factor * value;
      }
    }
  }
}

}  // namespace cuda
}  // namespace crisp
