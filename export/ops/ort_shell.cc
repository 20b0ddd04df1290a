// The ONNX Runtime side of the operator library: attributes and tensors in, Status out.
// Everything that computes is in sparse_attention.h; nothing there knows of ONNX Runtime.
#include "ort_common.h"
#include "sparse_attention.h"

namespace crisp {
namespace {

constexpr const char* kDomain = "crisp";

Pattern pattern_of(const Ort::ConstKernelInfo& info) {
  const std::string name = info.GetAttribute<std::string>("pattern");
  Pattern pattern;
  if (name == "dense") {
    pattern.kind = PatternKind::kDense;
  } else if (name == "topk") {
    pattern.kind = PatternKind::kTopK;
  } else if (name == "band") {
    pattern.kind = PatternKind::kBand;
  } else if (name == "block") {
    pattern.kind = PatternKind::kBlock;
  } else if (name == "blocktopk") {
    pattern.kind = PatternKind::kBlockTopK;
  } else {
    throw std::invalid_argument(
        "attribute pattern must be dense, topk, band, block or blocktopk, got '" + name + "'");
  }
  pattern.density_num = attribute(info, "density_num", pattern.density_num);
  pattern.density_den = attribute(info, "density_den", pattern.density_den);
  pattern.k = attribute(info, "k", pattern.k);
  pattern.window = attribute(info, "window", pattern.window);
  pattern.size = attribute(info, "size", pattern.size);
  pattern.globals = attribute(info, "globals", pattern.globals);
  check_pattern(pattern);
  return pattern;
}

Queries queries_of(const Ort::ConstKernelInfo& info) {
  const std::string name = text_attribute(info, "queries", "all");
  if (name != "all" && name != "first") {
    throw std::invalid_argument("attribute queries must be all or first, got '" + name + "'");
  }
  return name == "all" ? Queries::kAll : Queries::kFirst;
}

class SparseAttentionKernel {
 public:
  explicit SparseAttentionKernel(const OrtKernelInfo* handle) : isa_(choose_isa()) {
    const Ort::ConstKernelInfo info(handle);
    pattern_ = pattern_of(info);
    queries_ = queries_of(info);
    num_heads_ = attribute(info, "num_heads", 0);
    if (num_heads_ < 1) {
      throw std::invalid_argument("attribute num_heads must be positive, got " +
                                  std::to_string(num_heads_));
    }
  }

  OrtStatusPtr ComputeV2(OrtKernelContext* handle) noexcept {
    return status_of("SparseAttention", [&] { compute(Ort::KernelContext(handle)); });
  }

 private:
  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue qkv = context.GetInput(0);
    const Ort::ConstValue cu_seqlens = context.GetInput(1);
    const std::vector<int64_t> shape = qkv.GetTensorTypeAndShapeInfo().GetShape();
    const std::vector<int64_t> offsets = cu_seqlens.GetTensorTypeAndShapeInfo().GetShape();
    if (shape.size() != 2 || shape[1] % (3 * num_heads_) != 0 || shape[1] == 0) {
      throw std::invalid_argument("qkv must be [T, 3H] with H a multiple of num_heads " +
                                  std::to_string(num_heads_) + ", got " + text_of(shape));
    }
    if (offsets.size() != 1) {
      throw std::invalid_argument("cu_seqlens must be [B + 1], got " + text_of(offsets));
    }
    const int64_t tokens = shape[0];
    const int64_t hidden = shape[1] / 3;
    check_cu_seqlens(cu_seqlens.GetTensorData<int32_t>(), offsets[0], tokens);

    Operands operands;
    operands.qkv = qkv.GetTensorData<float>();
    operands.cu_seqlens = cu_seqlens.GetTensorData<int32_t>();
    operands.batch = offsets[0] - 1;
    operands.num_heads = num_heads_;
    operands.head_size = hidden / num_heads_;
    operands.pattern = pattern_;
    operands.queries = queries_;
    const int64_t rows = queries_ == Queries::kFirst ? operands.batch : tokens;
    operands.context = context.GetOutput(0, {rows, hidden}).GetTensorMutableData<float>();
    operands.received = nullptr;
    if (context.GetOutputCount() > 1) {
      Ort::UnownedValue received = context.GetOutput(1, {tokens});
      if (received) operands.received = received.GetTensorMutableData<float>();
    }

    sparse_attention(operands, isa_, [&](size_t tasks, const std::function<void(size_t)>& task) {
      // As many batches as tasks: the threads of the session take the next one as they get free.
      context.ParallelFor(
          [](void* data, size_t i) { (*static_cast<const std::function<void(size_t)>*>(data))(i); },
          tasks, tasks, const_cast<std::function<void(size_t)>*>(&task));
    });
  }

  Isa isa_;
  Pattern pattern_;
  Queries queries_;
  int64_t num_heads_;
};

// Without the shapes of its outputs ONNX Runtime loses their ranks, and with them its fusions.
// In terms of the C API: ShapeInferContext of the C++ headers up to 1.21 writes a symbolic
// dimension as -2, which later runtimes refuse.
OrtStatusPtr infer_shapes(const OrtCustomOp*, OrtShapeInferContext* context) noexcept {
  const OrtApi& api = Ort::GetApi();
  const auto check = [](OrtStatusPtr status) { Ort::ThrowOnError(status); };
  return status_of("SparseAttention", [&] {
    OrtTensorTypeAndShapeInfo* qkv = nullptr;  // the context's own
    check(api.ShapeInferContext_GetInputTypeShape(context, 0, &qkv));
    size_t rank = 0;
    check(api.GetDimensionsCount(qkv, &rank));
    if (rank != 2) return;  // unknown, or wrong: then compute() refuses it
    int64_t sizes[2];
    const char* symbols[2];
    check(api.GetDimensions(qkv, sizes, rank));
    check(api.GetSymbolicDimensions(qkv, symbols, rank));

    const int64_t shape[2] = {sizes[0], sizes[1] > 0 ? sizes[1] / 3 : -1};
    const char* names[2] = {symbols[0], ""};
    for (const size_t output : {0, 1}) {  // [T, H] and [T]
      OrtTensorTypeAndShapeInfo* made = nullptr;
      check(api.CreateTensorTypeAndShapeInfo(&made));
      const Ort::TensorTypeAndShapeInfo info(made);  // releases it
      check(api.SetTensorElementType(info, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
      check(api.SetDimensions(info, shape, rank - output));
      check(api.SetSymbolicDimensions(info, names, rank - output));
      Ort::Status set(api.ShapeInferContext_SetOutputTypeShape(context, output, info));
      if (output == 0) Ort::ThrowOnError(set.release());  // the node may lack the second
    }
  });
}

struct SparseAttentionOp
    : Ort::CustomOpBase<SparseAttentionOp, SparseAttentionKernel, /*WithStatus=*/true> {
  SparseAttentionOp() { InferOutputShapeFn = infer_shapes; }

  const char* GetName() const { return "SparseAttention"; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return status_of("SparseAttention", [&] { *kernel = new SparseAttentionKernel(info); });
  }

  size_t GetInputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  }

  size_t GetOutputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetOutputType(size_t) const {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(size_t index) const {
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }
};

}  // namespace
}  // namespace crisp

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    const std::string message = "the crisp operator library needs ONNX Runtime 1." +
                                std::to_string(ORT_API_VERSION) + " or newer, this is " +
                                base->GetVersionString();
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  return crisp::status_of("SparseAttention", [&] {
    // One domain for all sessions. They hold bare pointers to it and may outlive every static
    // object of this library, so it is never freed.
    static const Ort::CustomOpDomain* const domain = [] {
      auto* made = new Ort::CustomOpDomain(crisp::kDomain);
      made->Add(new crisp::SparseAttentionOp());
      crisp::add_prune_operator(*made);
      crisp::add_row_operators(*made);
      return made;
    }();
    Ort::UnownedSessionOptions(options).Add(*domain);
  });
}
