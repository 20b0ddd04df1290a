// The ONNX Runtime side of crisp::PruneTokens.
#include <algorithm>

#include "ort_common.h"
#include "prune_tokens.h"

namespace crisp {
namespace {

class PruneTokensKernel {
 public:
  static constexpr const char* kName = "PruneTokens";

  explicit PruneTokensKernel(const Ort::ConstKernelInfo& info) {
    rule_.keep_num = attribute(info, "keep_num", 0);
    rule_.keep_den = attribute(info, "keep_den", 0);
    rule_.floor = attribute(info, "floor", 0);
    check_prune_rule(rule_);
  }

  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue received = context.GetInput(0);
    const Ort::ConstValue offsets = context.GetInput(1);
    const Ort::ConstValue original = context.GetInput(2);
    check_shape("received", received, {-1});
    check_shape("cu_seqlens", offsets, {-1});
    check_shape("original_cu_seqlens", original, shape_of(offsets));
    const int64_t count = shape_of(offsets)[0];
    const int32_t* const cu_seqlens = offsets.GetTensorData<int32_t>();
    const int32_t* const original_cu_seqlens = original.GetTensorData<int32_t>();
    check_cu_seqlens(cu_seqlens, count, shape_of(received)[0]);
    check_cu_seqlens(original_cu_seqlens, count, original_cu_seqlens[count - 1]);
    check_original_lengths(cu_seqlens, original_cu_seqlens, count - 1);
    const KeptTokens found = prune_tokens(rule_, received.GetTensorData<float>(), cu_seqlens,
                                          original_cu_seqlens, count - 1);
    Ort::UnownedValue kept = context.GetOutput(0, {static_cast<int64_t>(found.kept.size())});
    std::copy(found.kept.begin(), found.kept.end(), kept.GetTensorMutableData<int64_t>());
    Ort::UnownedValue kept_offsets = context.GetOutput(1, {count});
    std::copy(found.cu_seqlens.begin(), found.cu_seqlens.end(),
              kept_offsets.GetTensorMutableData<int32_t>());
  }

 private:
  PruneRule rule_;
};

OrtStatusPtr infer_shapes(const OrtCustomOp*, OrtShapeInferContext* context) noexcept {
  return status_of(PruneTokensKernel::kName, [&] {
    set_output_shape(context, 0, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {{-1}, {""}});
    set_output_shape(context, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, input_shape(context, 1));
  });
}

struct PruneTokensOp
    : Ort::CustomOpBase<PruneTokensOp, Guarded<PruneTokensKernel>, /*WithStatus=*/true> {
  PruneTokensOp() { InferOutputShapeFn = infer_shapes; }

  const char* GetName() const { return PruneTokensKernel::kName; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return status_of(GetName(), [&] { *kernel = new Guarded<PruneTokensKernel>(info); });
  }

  size_t GetInputTypeCount() const { return 3; }
  ONNXTensorElementDataType GetInputType(size_t index) const {
    return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  }

  size_t GetOutputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetOutputType(size_t index) const {
    return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  }
};

}  // namespace

void add_prune_operator(Ort::CustomOpDomain& domain) { domain.Add(new PruneTokensOp()); }

}  // namespace crisp
