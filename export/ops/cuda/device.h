// What the operators ask of their device, in plain C++: device_cuda.cu answers for a GPU,
// device_host.cc for the tests.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <functional>

#include "half.h"

namespace crisp {
namespace cuda {

struct Device {
  void* stream;  // cudaStream_t of ONNX Runtime: all that is asked for runs on it, in order
  void* cublas;  // cublasHandle_t of ONNX Runtime, which has that stream
  // Memory of the device until the call ends; throws std::bad_alloc.
  std::function<void*(size_t bytes)> allocate;
};

// Bytes of shared memory that a block may have.
size_t most_shared_bytes();

void fill_zero(const Device& device, void* memory, size_t bytes);

// y [rows, outputs] = x [rows, inputs] · weight [inputs, outputs], row by row, sums in float.
void multiply(const Device& device, Precision precision, const void* x, const void* weight, void* y,
              int64_t rows, int64_t inputs, int64_t outputs);

}  // namespace cuda
}  // namespace crisp
