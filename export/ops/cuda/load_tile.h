// Rows of q, k or v from global memory into shared memory.
#pragma once

#include "block_program.h"
#include "half.h"

namespace crisp {
namespace cuda {

// Elements that one load of 16 bytes brings.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// Elements between two rows of `width` in shared memory: the rows of a fragment lie in different
// banks.
template <class T>
CRISP_HD constexpr int padded(int width) {
  return width + kVector<T>;
}

template <class T>
struct alignas(16) Vector {
  T element[kVector<T>];
};

// Where one head of one sequence's q, k or v lies; rows are `stride` elements apart.
template <class T>
struct Rows {
  const T* at;
  int64_t stride;
  int32_t width;   // head_size
  bool is_vector;  // every row starts at 16 bytes, and `width` is whole vectors

  // Elements [column, column + kVector) of a row, zeros beyond `width` and where there is no row.
  CRISP_HD Vector<T> vector(int row, int end, int column) const {
    Vector<T> result;
    const T* const from = at + row * stride + column;
    if (is_vector && row < end && column < width) {
      result = *reinterpret_cast<const Vector<T>*>(from);
    } else {
      CRISP_UNROLL
      for (int i = 0; i < kVector<T>; ++i) {
        result.element[i] = row < end && column + i < width ? from[i] : from_float<T>(0.0f);
      }
    }
    return result;
  }
};

// to [count][padded(kWidth)]: rows [first, first + count), those from `end` on zero.
template <int kThreads, int kWidth, class T>
CRISP_HD void load_rows(int thread, const Rows<T>& rows, int first, int count, int end, T* to) {
  constexpr int kVectors = kWidth / kVector<T>;
  for (int i = thread; i < count * kVectors; i += kThreads) {
    const int row = i / kVectors;
    const int column = i % kVectors * kVector<T>;
    *reinterpret_cast<Vector<T>*>(to + row * padded<T>(kWidth) + column) =
        rows.vector(first + row, end, column);
  }
}

// to [kWidth][padded(kCount)]: the same, transposed. Neighbouring threads take neighbouring rows,
// so that they store side by side. Returns whether all that this thread loaded is finite.
template <int kThreads, int kWidth, int kCount, class T>
CRISP_HD bool load_columns(int thread, const Rows<T>& rows, int first, int end, T* to) {
  bool finite = true;
  for (int i = thread; i < kCount * (kWidth / kVector<T>); i += kThreads) {
    const int row = i % kCount;
    const int column = i / kCount * kVector<T>;
    const Vector<T> vector = rows.vector(first + row, end, column);
    CRISP_UNROLL
    for (int j = 0; j < kVector<T>; ++j) {
      finite &= is_finite(to_float(vector.element[j]));
      to[(column + j) * padded<T>(kCount) + row] = vector.element[j];
    }
  }
  return finite;
}

}  // namespace cuda
}  // namespace crisp
