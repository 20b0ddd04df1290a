// What the files on the ONNX Runtime side share: attributes, constants, threads, errors.
//
// Only ort_*.cc include this; nothing that computes knows of ONNX Runtime.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "processors.h"
#include "share.h"
#include "sparse_attention.h"

namespace crisp {

static_assert(ORT_API_VERSION >= 17, "KernelContext_ParallelFor came with ONNX Runtime 1.17");

// Each file adds its operators to the domain. They are never freed: sessions hold bare pointers to
// them and may outlive every static object of this library.
void add_prune_operator(Ort::CustomOpDomain& domain);
void add_row_operators(Ort::CustomOpDomain& domain);

// Runs `body` and turns what it throws into a Status: no exception may cross ONNX Runtime's C API.
template <typename Body>
OrtStatusPtr status_of(const char* name, Body body) noexcept {
  const auto status = [name](const char* what, OrtErrorCode code) {
    return Ort::Status(("crisp::" + std::string(name) + ": " + what).c_str(), code).release();
  };
  try {
    body();
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return status(error.what(), ORT_INVALID_ARGUMENT);
  } catch (const std::bad_alloc&) {
    return status("out of memory", ORT_FAIL);
  } catch (const std::exception& error) {
    return status(error.what(), ORT_FAIL);
  }
}

// A kernel as ONNX Runtime calls it; `Kernel` has a static kName, a constructor from the node's
// information (and what else its operator gives it), and `void compute(const Ort::KernelContext&)
// const`.
template <typename Kernel>
class Guarded {
 public:
  template <typename... More>
  explicit Guarded(const OrtKernelInfo* info, const More&... more)
      : kernel_(Ort::ConstKernelInfo(info), more...) {}
  OrtStatusPtr ComputeV2(OrtKernelContext* handle) noexcept {
    return status_of(Kernel::kName, [&] { kernel_.compute(Ort::KernelContext(handle)); });
  }

 private:
  Kernel kernel_;
};

// Whether the options of a session have the entry `key` = "1".
inline bool has_entry(const OrtSessionOptions* options, const OrtApiBase* base, const char* key) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  char value[2] = {};
  size_t size = sizeof(value);
  int found = 0;
  if (api == nullptr) return false;
  OrtStatus* status = api->HasSessionConfigEntry(options, key, &found);
  if (status == nullptr && found) status = api->GetSessionConfigEntry(options, key, value, &size);
  if (status != nullptr) api->ReleaseStatus(status);
  return value[0] == '1';
}

// What RegisterCustomOps of a library does; `add` puts its operators into the domain.
template <typename Add>
OrtStatus* register_operators(OrtSessionOptions* options, const OrtApiBase* base, Add add) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    const std::string message = "the crisp operator library needs ONNX Runtime 1." +
                                std::to_string(ORT_API_VERSION) + " or newer, this is " +
                                base->GetVersionString();
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  return status_of("RegisterCustomOps", [&] {
    // One domain for all sessions with the same `add`. They hold bare pointers to it and may
    // outlive every static object of this library, so it is never freed.
    static const Ort::CustomOpDomain* const domain = [&] {
      auto* made = new Ort::CustomOpDomain("crisp");
      add(*made);
      return made;
    }();
    Ort::UnownedSessionOptions(options).Add(*domain);
  });
}

// Whether the node has the attribute, of whatever type: ONNX Runtime has no such question, and
// answers those for a value alike where the attribute is missing and where it is of another type.
inline bool has_attribute(const Ort::ConstKernelInfo& info, const char* name) {
  const OrtApi& api = Ort::GetApi();
  int64_t whole = 0;
  float real = 0;
  size_t size = 0;
  const auto is_ok = [](OrtStatus* status) { return Ort::Status(status).IsOK(); };
  return is_ok(api.KernelInfoGetAttribute_int64(info, name, &whole)) ||
         is_ok(api.KernelInfoGetAttribute_float(info, name, &real)) ||
         is_ok(api.KernelInfoGetAttribute_string(info, name, nullptr, &size)) ||
         is_ok(api.KernelInfoGetAttributeArray_int64(info, name, nullptr, &size)) ||
         is_ok(api.KernelInfoGetAttributeArray_float(info, name, nullptr, &size));
}

// The value of an attribute, `otherwise` where the node has none of this name. Throws
// std::invalid_argument where it is of another type.
inline int64_t attribute(const Ort::ConstKernelInfo& info, const char* name, int64_t otherwise) {
  int64_t value = 0;
  Ort::Status status(Ort::GetApi().KernelInfoGetAttribute_int64(info, name, &value));
  if (status.IsOK()) return value;
  if (!has_attribute(info, name)) return otherwise;
  throw std::invalid_argument("attribute " + std::string(name) + " must be an integer");
}

inline std::string text_attribute(const Ort::ConstKernelInfo& info, const char* name,
                                  const char* otherwise) {
  size_t size = 0;  // with the final 0
  Ort::Status status(Ort::GetApi().KernelInfoGetAttribute_string(info, name, nullptr, &size));
  if (status.IsOK()) return info.GetAttribute<std::string>(name);
  if (!has_attribute(info, name)) return otherwise;
  throw std::invalid_argument("attribute " + std::string(name) + " must be text");
}

using Shape = std::vector<int64_t>;

inline std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

inline Shape shape_of(const Ort::ConstValue& value) {
  return value.GetTensorTypeAndShapeInfo().GetShape();
}

// Throws std::invalid_argument unless `value` has this shape; a negative size admits any.
inline void check_shape(const char* name, const Ort::ConstValue& value, const Shape& expected) {
  const Shape found = shape_of(value);
  bool fits = found.size() == expected.size();
  for (size_t i = 0; fits && i < found.size(); ++i) {
    fits = expected[i] < 0 || found[i] == expected[i];
  }
  if (!fits) {
    std::string text = text_of(expected);
    for (size_t at; (at = text.find("-1")) != std::string::npos;) text.replace(at, 2, "any");
    throw std::invalid_argument(std::string(name) + " must be " + text + ", got " + text_of(found));
  }
}

// The elements of `value`. Throws std::invalid_argument where they are of another type: ONNX
// Runtime hands an operator that takes any whatever stands in the model.
template <typename T>
const T* elements_of(const char* name, const Ort::ConstValue& value) {
  if (value.GetTensorTypeAndShapeInfo().GetElementType() != Ort::TypeToTensorType<T>::type) {
    const char* const type = std::is_same_v<T, float>     ? "float"
                             : std::is_same_v<T, int32_t> ? "int32"
                                                          : "int64";
    throw std::invalid_argument(std::string(name) + " must be " + type);
  }
  return value.GetTensorData<T>();
}

// How many threads an operator may use; 0: all of its session. CrispShare, which callers that have
// several runs under way look up in the library, sets it for the process.
inline std::atomic<int32_t> share_of_a_run{0};

// The threads of the session, or as many of them as the share of a run: share.h.
inline ParallelFor threads_of(const Ort::KernelContext& context) {
  return [&context](size_t tasks, const std::function<void(size_t)>& task) {
    const size_t batches = batches_of(share_of_a_run.load(std::memory_order_relaxed), tasks);
    if (batches <= 1) {
      for (size_t i = 0; i < tasks; ++i) task(i);
      return;
    }
    context.ParallelFor(
        [](void* data, size_t i) { (*static_cast<const std::function<void(size_t)>*>(data))(i); },
        tasks, batches, const_cast<std::function<void(size_t)>*>(&task));
  };
}

// For how many threads an operator cuts its work. ONNX Runtime tells nobody how many its session
// has: the processors, asked for once, are as many as any can use.
inline int64_t threads_to_cut_for() {
  static const int64_t most = processors();
  return threads_to_cut_for(share_of_a_run.load(std::memory_order_relaxed), most);
}

// For shape inference, without which ONNX Runtime loses the ranks of outputs, and with them its
// fusions. In terms of the C API: ShapeInferContext of the C++ headers up to 1.21 writes a symbolic
// dimension as -2, which later runtimes refuse.
struct InferredShape {
  Shape sizes;                       // -1 where unknown
  std::vector<const char*> symbols;  // "" where there is none
};

// That of an input; empty where it is unknown.
inline InferredShape input_shape(OrtShapeInferContext* context, size_t input) {
  const OrtApi& api = Ort::GetApi();
  OrtTensorTypeAndShapeInfo* info = nullptr;  // the context's own
  Ort::ThrowOnError(api.ShapeInferContext_GetInputTypeShape(context, input, &info));
  size_t rank = 0;
  Ort::ThrowOnError(api.GetDimensionsCount(info, &rank));
  InferredShape shape{Shape(rank), std::vector<const char*>(rank, "")};
  Ort::ThrowOnError(api.GetDimensions(info, shape.sizes.data(), rank));
  Ort::ThrowOnError(api.GetSymbolicDimensions(info, shape.symbols.data(), rank));
  return shape;
}

// The type of an input's elements.
inline ONNXTensorElementDataType input_type(OrtShapeInferContext* context, size_t input) {
  const OrtApi& api = Ort::GetApi();
  OrtTensorTypeAndShapeInfo* info = nullptr;  // the context's own
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  Ort::ThrowOnError(api.ShapeInferContext_GetInputTypeShape(context, input, &info));
  Ort::ThrowOnError(api.GetTensorElementType(info, &type));
  return type;
}

// False where the node lacks this output. An unknown size gets a name of its own: ONNX Runtime
// takes those without one for equal, and plans its memory by that.
inline bool set_output_shape(OrtShapeInferContext* context, size_t output,
                             ONNXTensorElementDataType type, const InferredShape& shape) {
  static std::atomic<int64_t> unknown{0};
  const OrtApi& api = Ort::GetApi();
  OrtTensorTypeAndShapeInfo* made = nullptr;
  Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&made));
  const Ort::TensorTypeAndShapeInfo info(made);  // releases it
  std::vector<std::string> names(shape.sizes.size());
  std::vector<const char*> symbols;
  for (size_t i = 0; i < names.size(); ++i) {
    names[i] = shape.symbols[i];
    if (shape.sizes[i] < 0 && names[i].empty()) {
      names[i] = "crisp_unknown_" + std::to_string(unknown++);
    }
    symbols.push_back(names[i].c_str());
  }
  Ort::ThrowOnError(api.SetTensorElementType(info, type));
  Ort::ThrowOnError(api.SetDimensions(info, shape.sizes.data(), shape.sizes.size()));
  Ort::ThrowOnError(api.SetSymbolicDimensions(info, symbols.data(), symbols.size()));
  return Ort::Status(api.ShapeInferContext_SetOutputTypeShape(context, output, info)).IsOK();
}

}  // namespace crisp
