// The ONNX Runtime side of the operator library: attributes and tensors in, Status out.
// Everything that computes is in sparse_attention.h; nothing there knows of ONNX Runtime.
#include "ort_attention.h"
#include "ort_common.h"
#include "sparse_attention.h"

namespace crisp {
namespace {

class SparseAttentionKernel {
 public:
  static constexpr const char* kName = "SparseAttention";

  SparseAttentionKernel(const Ort::ConstKernelInfo& info, bool bf16)
      : isa_(choose_isa()),
        bf16_(bf16),
        pattern_(pattern_of(info)),
        queries_(queries_of(info)),
        num_heads_(num_heads_of(info)) {}

  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue qkv = context.GetInput(0);
    const Ort::ConstValue cu_seqlens = context.GetInput(1);
    const std::vector<int64_t> shape = qkv.GetTensorTypeAndShapeInfo().GetShape();
    const std::vector<int64_t> offsets = cu_seqlens.GetTensorTypeAndShapeInfo().GetShape();
    check_attention_shapes(shape, offsets, num_heads_);
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
    operands.bf16 = bf16_;
    const int64_t rows = queries_ == Queries::kFirst ? operands.batch : tokens;
    operands.context = context.GetOutput(0, {rows, hidden}).GetTensorMutableData<float>();
    operands.received = nullptr;
    if (context.GetOutputCount() > 1) {
      Ort::UnownedValue received = context.GetOutput(1, {tokens});
      if (received) operands.received = received.GetTensorMutableData<float>();
    }

    sparse_attention(operands, isa_, threads_of(context));
  }

 private:
  Isa isa_;
  bool bf16_;
  Pattern pattern_;
  Queries queries_;
  int64_t num_heads_;
};

OrtStatusPtr infer_shapes(const OrtCustomOp*, OrtShapeInferContext* context) noexcept {
  return status_of(SparseAttentionKernel::kName, [&] { infer_attention(context); });
}

struct SparseAttentionOp
    : Ort::CustomOpBase<SparseAttentionOp, Guarded<SparseAttentionKernel>, /*WithStatus=*/true> {
  explicit SparseAttentionOp(bool bf16) : bf16_(bf16) { InferOutputShapeFn = infer_shapes; }

  const char* GetName() const { return SparseAttentionKernel::kName; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return status_of(GetName(), [&] { *kernel = new Guarded<SparseAttentionKernel>(info, bf16_); });
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

 private:
  bool bf16_;
};

void add_operators(Ort::CustomOpDomain& domain, bool bf16) {
  domain.Add(new SparseAttentionOp(bf16));
  add_prune_operator(domain);
  add_row_operators(domain);
}

}  // namespace
}  // namespace crisp

// The entry "crisp.bf16" = "1" of the session's options, made before, lets attention multiply in
// bfloat16 where the processor does.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  if (crisp::has_entry(options, base, "crisp.bf16")) {
    return crisp::register_operators(
        options, base, [](Ort::CustomOpDomain& domain) { crisp::add_operators(domain, true); });
  }
  return crisp::register_operators(
      options, base, [](Ort::CustomOpDomain& domain) { crisp::add_operators(domain, false); });
}
