// The GPU: its memory and matrix products.
//
// Products are cuBLAS's, with the handle of ONNX Runtime, whose CUDA provider has the library
// loaded already. It is looked up when it is first needed, so that building this library takes
// nothing but the compiler and the CUDA runtime.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <library_types.h>

#include "launch.h"

#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
#endif

namespace crisp {
namespace cuda {
namespace {

// cublasGemmEx and the values that are given to it, as in cublas_api.h since CUDA 11.
using GemmEx = int (*)(void* handle, int transa, int transb, int m, int n, int k, const void* alpha,
                       const void* a, cudaDataType a_type, int lda, const void* b,
                       cudaDataType b_type, int ldb, const void* beta, void* c, cudaDataType c_type,
                       int ldc, int compute_type, int algorithm);
constexpr int kSuccess = 0;
constexpr int kNotTransposed = 0;
constexpr int kComputeFloat = 68;
constexpr int kDefaultAlgorithm = -1;
#ifdef CUBLAS_VER_MAJOR
static_assert(kSuccess == CUBLAS_STATUS_SUCCESS && kNotTransposed == CUBLAS_OP_N &&
                  kComputeFloat == CUBLAS_COMPUTE_32F && kDefaultAlgorithm == CUBLAS_GEMM_DEFAULT,
              "cuBLAS changed its values");
#endif

GemmEx find_gemm() {
  const std::string name = "libcublas.so." + std::to_string(CUDART_VERSION / 1000);
  void* const library = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
  void* const found = library == nullptr ? nullptr : dlsym(library, "cublasGemmEx");
  if (found == nullptr) {
    throw std::runtime_error(name + " is not to be had; ONNX Runtime must be built for the CUDA " +
                             "version that this library was built with");
  }
  return reinterpret_cast<GemmEx>(found);
}

}  // namespace

size_t most_shared_bytes() {
  int device = 0;
  int bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  return static_cast<size_t>(bytes);
}

void fill_zero(const Device& device, void* memory, size_t bytes) {
  check(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(device.stream)),
        "cudaMemsetAsync");
}

// cuBLAS counts by columns: to it, our rows are the transposes, and yᵀ = weightᵀ · xᵀ.
void multiply(const Device& device, Precision precision, const void* x, const void* weight, void* y,
              int64_t rows, int64_t inputs, int64_t outputs) {
  static const GemmEx gemm = find_gemm();
  const cudaDataType type = precision == Precision::kHalf ? CUDA_R_16F : CUDA_R_32F;
  const int m = static_cast<int>(outputs);
  const int n = static_cast<int>(rows);
  const int k = static_cast<int>(inputs);
  const float one = 1.0f;
  const float zero = 0.0f;
  const int status = gemm(device.cublas, kNotTransposed, kNotTransposed, m, n, k, &one, weight,
                          type, m, x, type, k, &zero, y, type, m, kComputeFloat, kDefaultAlgorithm);
  if (status != kSuccess) {
    throw std::runtime_error("cublasGemmEx: status " + std::to_string(status));
  }
}

}  // namespace cuda
}  // namespace crisp
