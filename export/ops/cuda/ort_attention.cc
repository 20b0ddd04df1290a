// The ONNX Runtime side of crisp::SparseAttention and crisp::PruneTokens on a GPU, and the symbol
// that registers all operators.
#include "../ort_attention.h"

#include "ort_device.h"

namespace crisp {
namespace cuda {
namespace {

template <Precision kPrecision>
class SparseAttentionKernel {
 public:
  static constexpr const char* kName = "SparseAttention";
  static std::vector<ONNXTensorElementDataType> inputs() { return {type_of(kPrecision), kInt32}; }
  static std::vector<ONNXTensorElementDataType> outputs() { return {type_of(kPrecision), kFloat}; }
  static bool is_on_host(size_t input) { return input == 1; }
  static bool is_optional(size_t output) { return output == 1; }
  static void infer(OrtShapeInferContext* context) { infer_attention(context); }

  explicit SparseAttentionKernel(const Ort::ConstKernelInfo& info)
      : pattern_(pattern_of(info)), queries_(queries_of(info)), num_heads_(num_heads_of(info)) {}

  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue qkv = context.GetInput(0);
    const Shape shape = shape_of(qkv);
    check_attention_shapes(shape, shape_of(context.GetInput(1)), num_heads_);
    const Offsets offsets = offsets_of(context.GetInput(1), shape[0]);
    const int64_t hidden = shape[1] / 3;
    Attention call{};
    call.precision = kPrecision;
    call.qkv = data_of(qkv);
    call.cu_seqlens = offsets.at;
    call.batch = offsets.batch();
    call.num_heads = num_heads_;
    call.head_size = hidden / num_heads_;
    call.pattern = pattern_;
    call.queries = queries_;
    const int64_t rows = queries_ == Queries::kFirst ? call.batch : shape[0];
    call.context = data_of(context.GetOutput(0, {rows, hidden}));
    if (context.GetOutputCount() > 1) {
      Ort::UnownedValue received = context.GetOutput(1, {shape[0]});
      if (received) call.received = received.GetTensorMutableData<float>();
    }
    const CallDevice device(context, qkv);
    sparse_attention(device.get(), call);
  }

 private:
  Pattern pattern_;
  Queries queries_;
  int64_t num_heads_;
};

class PruneTokensKernel {
 public:
  static constexpr const char* kName = "PruneTokens";
  static std::vector<ONNXTensorElementDataType> inputs() { return {kFloat, kInt32, kInt32}; }
  static std::vector<ONNXTensorElementDataType> outputs() { return {kInt64, kInt32}; }
  static bool is_on_host(size_t input) { return input != 0; }
  static bool is_optional(size_t) { return false; }
  static void infer(OrtShapeInferContext* context) {
    set_output_shape(context, 0, kInt64, {{-1}, {""}});
    set_output_shape(context, 1, kInt32, input_shape(context, 1));
  }

  explicit PruneTokensKernel(const Ort::ConstKernelInfo& info) {
    rule_.keep_num = attribute(info, "keep_num", 0);
    rule_.keep_den = attribute(info, "keep_den", 0);
    rule_.floor = attribute(info, "floor", 0);
    check_prune_rule(rule_);
  }

  // The interface of custom operators puts outputs on the device, kept_cu_seqlens too; ONNX Runtime
  // copies it back for the next attention. docs/gpu.md says what that costs.
  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue received = context.GetInput(0);
    check_shape("received", received, {-1});
    const Offsets offsets = offsets_of(context.GetInput(1), shape_of(received)[0]);
    const Ort::ConstValue original = context.GetInput(2);
    check_shape("original_cu_seqlens", original, {offsets.count});
    const int32_t* const lengths = original.GetTensorData<int32_t>();
    check_cu_seqlens(lengths, offsets.count, lengths[offsets.batch()]);
    check_original_lengths(offsets.at, lengths, offsets.batch());
    const int64_t count = count_kept(rule_, offsets.at, lengths, offsets.batch());
    Ort::UnownedValue kept = context.GetOutput(0, {count});
    Ort::UnownedValue kept_offsets = context.GetOutput(1, {offsets.count});
    const CallDevice device(context, received);
    prune_tokens(device.get(), rule_, received.GetTensorData<float>(), offsets.at, lengths,
                 offsets.batch(), kept.GetTensorMutableData<int64_t>(),
                 kept_offsets.GetTensorMutableData<int32_t>());
  }

 private:
  PruneRule rule_;
};

}  // namespace

void add_attention_operators(Ort::CustomOpDomain& domain) {
  domain.Add(new Operator<SparseAttentionKernel<Precision::kFloat>>());
  domain.Add(new Operator<SparseAttentionKernel<Precision::kHalf>>());
  domain.Add(new Operator<PruneTokensKernel>());
}

}  // namespace cuda
}  // namespace crisp

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  return crisp::register_operators(options, base, [](Ort::CustomOpDomain& domain) {
    crisp::cuda::add_attention_operators(domain);
    crisp::cuda::add_row_operators(domain);
  });
}
