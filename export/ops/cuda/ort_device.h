// What the files on the ONNX Runtime side of the GPU library share: the device of a call, tensors
// of float or half, and the base of every operator.
//
// Compiled with CRISP_ON_HOST, the same operators are those of the CPU provider, and run their
// block programs on the host: so the tests run whole models through this library without a GPU.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../ort_common.h"
#include "operators.h"

namespace crisp {
namespace cuda {

#ifdef CRISP_ON_HOST
constexpr const char* kProvider = "CPUExecutionProvider";
#else
constexpr const char* kProvider = "CUDAExecutionProvider";
#endif

// cublas_handle_t of ONNX Runtime's core/providers/cuda/cuda_resource.h, which no package has.
constexpr int kCublasResource = 10002;
constexpr int kResourceVersion = 1;

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kFloat16 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr auto kInt32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

constexpr ONNXTensorElementDataType type_of(Precision precision) {
  return precision == Precision::kHalf ? kFloat16 : kFloat;
}

// The device of one call. Memory comes from ONNX Runtime's allocator, for its stream, and goes back
// when the call ends: what still runs then runs before whatever the stream uses it for next.
class CallDevice {
 public:
  // `on_device` is any input that lies there.
  CallDevice(const Ort::KernelContext& context, const Ort::ConstValue& on_device)
      : context_(context), memory_info_(on_device.GetTensorMemoryInfo()) {
    device_.allocate = [this](size_t bytes) { return allocate(bytes); };
#ifndef CRISP_ON_HOST
    device_.stream = context.GetGPUComputeStream();
#endif
  }
  CallDevice(const CallDevice&) = delete;
  CallDevice& operator=(const CallDevice&) = delete;
  ~CallDevice() {
    if (allocator_ == nullptr) return;
    for (void* memory : allocated_) allocator_->Free(allocator_, memory);
    Ort::GetApi().ReleaseAllocator(allocator_);
  }

  // With cuBLAS, for matrix products.
  const Device& with_products() {
#ifndef CRISP_ON_HOST
    Ort::ThrowOnError(Ort::GetApi().KernelContext_GetResource(handle(), kResourceVersion,
                                                              kCublasResource, &device_.cublas));
#endif
    return device_;
  }
  const Device& get() const { return device_; }

 private:
  const OrtKernelContext* handle() const { return context_.GetOrtKernelContext(); }

  void* allocate(size_t bytes) {
    const OrtApi& api = Ort::GetApi();
    if (allocator_ == nullptr) {
      Ort::ThrowOnError(api.KernelContext_GetAllocator(handle(), memory_info_, &allocator_));
    }
    void* memory = nullptr;
    bytes = bytes == 0 ? 1 : bytes;
#ifdef CRISP_ON_HOST
    memory = allocator_->Alloc(allocator_, bytes);
#else
    Ort::ThrowOnError(api.KernelContext_GetScratchBuffer(handle(), memory_info_, bytes, &memory));
#endif
    if (memory == nullptr) throw std::bad_alloc();
    allocated_.push_back(memory);
    return memory;
  }

  const Ort::KernelContext& context_;
  Ort::ConstMemoryInfo memory_info_;
  OrtAllocator* allocator_ = nullptr;
  std::vector<void*> allocated_;
  Device device_{};
};

inline const void* data_of(const Ort::ConstValue& value) { return value.GetTensorRawData(); }
inline void* data_of(Ort::UnownedValue value) { return value.GetTensorMutableRawData(); }

// Checked offsets in host memory.
struct Offsets {
  const int32_t* at;
  int64_t count;  // B + 1
  int64_t batch() const { return count - 1; }
};

inline Offsets offsets_of(const Ort::ConstValue& value, int64_t tokens) {
  check_shape("cu_seqlens", value, {-1});
  const Offsets offsets = {value.GetTensorData<int32_t>(), shape_of(value)[0]};
  check_cu_seqlens(offsets.at, offsets.count, tokens);
  return offsets;
}

// An operator. `Kernel` has
//   static constexpr const char* kName;
//   static std::vector<ONNXTensorElementDataType> inputs(), outputs();
//   static bool is_on_host(size_t input);  // whether it wants that input in host memory
//   static bool is_optional(size_t output);
//   static void infer(OrtShapeInferContext*);  // types from the inputs: of the operators of one
//       name, ONNX Runtime asks the first alone
//   explicit Kernel(const Ort::ConstKernelInfo&);
//   void compute(const Ort::KernelContext&) const;
template <class Kernel>
struct Operator : Ort::CustomOpBase<Operator<Kernel>, Guarded<Kernel>, /*WithStatus=*/true> {
  Operator() {
    this->InferOutputShapeFn = [](const OrtCustomOp*,
                                  OrtShapeInferContext* context) noexcept -> OrtStatusPtr {
      return status_of(Kernel::kName, [&] { Kernel::infer(context); });
    };
  }

  const char* GetName() const { return Kernel::kName; }
  const char* GetExecutionProviderType() const { return kProvider; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return status_of(Kernel::kName, [&] { *kernel = new Guarded<Kernel>(info); });
  }

  size_t GetInputTypeCount() const { return Kernel::inputs().size(); }
  ONNXTensorElementDataType GetInputType(size_t index) const { return Kernel::inputs()[index]; }
  OrtMemType GetInputMemoryType(size_t index) const {
    return Kernel::is_on_host(index) ? OrtMemTypeCPUInput : OrtMemTypeDefault;
  }

  size_t GetOutputTypeCount() const { return Kernel::outputs().size(); }
  ONNXTensorElementDataType GetOutputType(size_t index) const { return Kernel::outputs()[index]; }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(size_t index) const {
    return Kernel::is_optional(index) ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  }
};

void add_attention_operators(Ort::CustomOpDomain& domain);
void add_row_operators(Ort::CustomOpDomain& domain);

}  // namespace cuda
}  // namespace crisp
