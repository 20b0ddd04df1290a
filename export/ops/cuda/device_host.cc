// The device of the tests: memory and matrix products of the host.
#include <string.h>

#include <vector>

#include "device.h"

namespace crisp {
namespace cuda {
namespace {

template <class T>
void multiply_rows(const T* x, const T* weight, T* y, int64_t rows, int64_t inputs,
                   int64_t outputs) {
  std::vector<float> sums(static_cast<size_t>(outputs));
  for (int64_t row = 0; row < rows; ++row) {
    sums.assign(sums.size(), 0.0f);
    for (int64_t i = 0; i < inputs; ++i) {
      const float factor = to_float(x[row * inputs + i]);
      for (int64_t j = 0; j < outputs; ++j) sums[j] += factor * to_float(weight[i * outputs + j]);
    }
    for (int64_t j = 0; j < outputs; ++j) y[row * outputs + j] = from_float<T>(sums[j]);
  }
}

}  // namespace

size_t most_shared_bytes() { return 99 << 10; }  // of the smallest GPU since Ampere

void fill_zero(const Device&, void* memory, size_t bytes) { memset(memory, 0, bytes); }

void multiply(const Device&, Precision precision, const void* x, const void* weight, void* y,
              int64_t rows, int64_t inputs, int64_t outputs) {
  if (precision == Precision::kHalf) {
    multiply_rows(static_cast<const Half*>(x), static_cast<const Half*>(weight),
                  static_cast<Half*>(y), rows, inputs, outputs);
  } else {
    multiply_rows(static_cast<const float*>(x), static_cast<const float*>(weight),
                  static_cast<float*>(y), rows, inputs, outputs);
  }
}

}  // namespace cuda
}  // namespace crisp
