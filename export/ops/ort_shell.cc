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

    sparse_attention(operands, isa_, threads_of(context));
  }

  Isa isa_;
  Pattern pattern_;
  Queries queries_;
  int64_t num_heads_;
};

bool first_queries_only(OrtShapeInferContext* context) {
  const OrtOpAttr* attribute = nullptr;  // the context's own
  Ort::Status found(Ort::GetApi().ShapeInferContext_GetAttribute(context, "queries", &attribute));
  char text[sizeof("first")] = {};  // a longer text is another one
  size_t size = 0;
  if (!found.IsOK()) return false;
  Ort::Status read(
      Ort::GetApi().ReadOpAttr(attribute, ORT_OP_ATTR_STRING, text, sizeof(text), &size));
  return read.IsOK() && std::string(text) == "first";
}

OrtStatusPtr infer_shapes(const OrtCustomOp*, OrtShapeInferContext* context) noexcept {
  return status_of("SparseAttention", [&] {
    const InferredShape qkv = input_shape(context, 0);
    if (qkv.sizes.size() != 2) return;  // unknown, or wrong: then compute() refuses it
    const bool first_only = first_queries_only(context);
    const int64_t hidden = qkv.sizes[1] > 0 ? qkv.sizes[1] / 3 : -1;
    set_output_shape(context, 0, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                     {{first_only ? -1 : qkv.sizes[0], hidden},
                      {first_only ? "" : qkv.symbols[0], ""}});  // [B, H] or [T, H]
    set_output_shape(context, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                     {{qkv.sizes[0]}, {qkv.symbols[0]}});
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
