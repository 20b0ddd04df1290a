// The ONNX Runtime side of the row operators on a GPU: inputs as in ../ort_rows.cc, of float or
// half; scales, biases and the weights of LayerNorms are always float. Weights of int8 are for
// CPUs.
#include "../packed_linear.h"
#include "ort_device.h"

namespace crisp {
namespace cuda {
namespace {

// The inputs of a node, taken one after the other.
class Inputs {
 public:
  Inputs(const Ort::KernelContext& context, size_t first) : context_(context), next_(first) {}

  Ort::ConstValue take(const char* name, const Shape& shape) {
    const Ort::ConstValue value = context_.GetInput(next_++);
    check_shape(name, value, shape);
    return value;
  }

  const float* take_floats(const char* name, int64_t size) {
    return take(name, {size}).GetTensorData<float>();
  }

  // A negative size admits any but none: no kernel is launched for nothing.
  Linear take_linear(int64_t inputs) {
    const Ort::ConstValue weight = take("weight", {inputs, -1});
    const Shape shape = shape_of(weight);
    check_weight_sizes(shape[0], shape[1]);
    const float* const scale = take_floats("scale", shape[1]);
    return {data_of(weight), scale, take_floats("bias", shape[1]), shape[0], shape[1]};
  }

  Norm take_norm(int64_t width, float epsilon) {
    const float* const gamma = take_floats("gamma", width);
    return {gamma, take_floats("beta", width), epsilon};
  }

 private:
  const Ort::KernelContext& context_;
  size_t next_;
};

using Types = std::vector<ONNXTensorElementDataType>;

// What all of them have in common.
struct RowKernel {
  static bool is_on_host(size_t) { return false; }
  static bool is_optional(size_t) { return false; }
};

template <Precision kPrecision>
class LinearKernel : public RowKernel {
 public:
  static constexpr const char* kName = "Linear";
  static Types inputs() { return {type_of(kPrecision), type_of(kPrecision), kFloat, kFloat}; }
  static Types outputs() { return {type_of(kPrecision)}; }
  static void infer(OrtShapeInferContext* context) {
    const InferredShape x = input_shape(context, 0);
    const InferredShape weight = input_shape(context, 1);
    if (x.sizes.size() != 2 || weight.sizes.size() != 2) return;
    set_output_shape(context, 0, input_type(context, 0),
                     {{x.sizes[0], weight.sizes[1]}, {x.symbols[0], ""}});
  }

  explicit LinearKernel(const Ort::ConstKernelInfo&) {}

  void compute(const Ort::KernelContext& context) const {
    const Linear layer = Inputs(context, 1).take_linear(-1);
    const Ort::ConstValue x = context.GetInput(0);
    check_shape("x", x, {-1, layer.inputs});
    const int64_t rows = shape_of(x)[0];
    Ort::UnownedValue y = context.GetOutput(0, {rows, layer.outputs});
    CallDevice device(context, x);
    linear(device.with_products(), kPrecision, layer, data_of(x), rows, data_of(y));
  }
};

template <Precision kPrecision, bool kQkv>
class PostAttentionKernel : public RowKernel {
 public:
  static constexpr const char* kName = kQkv ? "PostAttentionQkv" : "PostAttention";
  static Types inputs() {
    const auto type = type_of(kPrecision);
    Types types = {type,   type,   type, kFloat, kFloat, kFloat, kFloat, type,
                   kFloat, kFloat, type, kFloat, kFloat, kFloat, kFloat};
    if (kQkv) types.insert(types.end(), {type, kFloat, kFloat});
    return types;
  }
  static Types outputs() { return Types(kQkv ? 2 : 1, type_of(kPrecision)); }
  static void infer(OrtShapeInferContext* context) {
    const InferredShape hidden = input_shape(context, 1);
    if (hidden.sizes.size() != 2) return;
    set_output_shape(context, 0, input_type(context, 0), hidden);
    if (!kQkv) return;
    const InferredShape weight = input_shape(context, 15);
    if (weight.sizes.size() != 2) return;
    set_output_shape(context, 1, input_type(context, 0),
                     {{hidden.sizes[0], weight.sizes[1]}, {hidden.symbols[0], ""}});
  }

  explicit PostAttentionKernel(const Ort::ConstKernelInfo& info)
      : epsilon_(info.GetAttribute<float>("epsilon")) {}

  void compute(const Ort::KernelContext& context) const {
    Inputs inputs(context, 2);
    PostAttention call{};
    call.precision = kPrecision;
    call.out = inputs.take_linear(-1);
    const int64_t width = call.out.outputs;
    call.attended = inputs.take_norm(width, epsilon_);
    call.inner = inputs.take_linear(width);
    call.outer = inputs.take_linear(call.inner.outputs);
    call.output_norm = inputs.take_norm(width, epsilon_);
    if (call.outer.outputs != width) {
      throw std::invalid_argument("the feed-forward network must be as wide at its end, " +
                                  std::to_string(call.outer.outputs) + ", as at its beginning, " +
                                  std::to_string(width));
    }
    const Ort::ConstValue attended = context.GetInput(0);
    const Ort::ConstValue hidden = context.GetInput(1);
    check_shape("context", attended, {-1, call.out.inputs});
    call.rows = shape_of(attended)[0];
    check_shape("hidden", hidden, {call.rows, width});
    call.context = data_of(attended);
    call.hidden = data_of(hidden);
    call.output = data_of(context.GetOutput(0, {call.rows, width}));
    Linear qkv{};
    if (kQkv) {
      qkv = inputs.take_linear(width);
      call.qkv = &qkv;
      call.qkv_output = data_of(context.GetOutput(1, {call.rows, qkv.outputs}));
    }
    CallDevice device(context, attended);
    post_attention(device.with_products(), call);
  }

 private:
  float epsilon_;
};

template <Precision kPrecision>
class EmbedKernel : public RowKernel {
 public:
  static constexpr const char* kName = "Embed";
  static Types inputs() {
    return {kInt64, kInt32, type_of(kPrecision), kFloat, type_of(kPrecision), kFloat,
            kFloat, kFloat};
  }
  static Types outputs() { return {type_of(kPrecision)}; }
  static bool is_on_host(size_t input) { return input == 1; }
  static void infer(OrtShapeInferContext* context) {
    const InferredShape ids = input_shape(context, 0);
    const InferredShape words = input_shape(context, 2);
    if (ids.sizes.size() != 1 || words.sizes.size() != 2) return;
    set_output_shape(context, 0, input_type(context, 2),
                     {{ids.sizes[0], words.sizes[1]}, {ids.symbols[0], ""}});
  }

  explicit EmbedKernel(const Ort::ConstKernelInfo& info)
      : epsilon_(info.GetAttribute<float>("epsilon")) {}

  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue ids = context.GetInput(0);
    check_shape("input_ids", ids, {-1});
    const int64_t tokens = shape_of(ids)[0];
    const Offsets offsets = offsets_of(context.GetInput(1), tokens);
    Inputs inputs(context, 2);
    Embedding call{};
    call.precision = kPrecision;
    const Ort::ConstValue words = inputs.take("words", {-1, -1});
    call.word_count = shape_of(words)[0];
    call.width = shape_of(words)[1];
    call.words = data_of(words);
    call.word_scale = inputs.take_floats("scale", call.word_count);
    const Ort::ConstValue positions = inputs.take("positions", {-1, call.width});
    call.position_count = shape_of(positions)[0];
    call.positions = data_of(positions);
    call.position_scale = inputs.take_floats("scale", call.position_count);
    call.norm = inputs.take_norm(call.width, epsilon_);
    call.input_ids = ids.GetTensorData<int64_t>();
    call.cu_seqlens = offsets.at;
    call.batch = offsets.batch();
    call.hidden = data_of(context.GetOutput(0, {tokens, call.width}));
    const CallDevice device(context, ids);
    embed(device.get(), call);
  }

 private:
  float epsilon_;
};

template <Precision kPrecision>
void add(Ort::CustomOpDomain& domain) {
  domain.Add(new Operator<LinearKernel<kPrecision>>());
  domain.Add(new Operator<PostAttentionKernel<kPrecision, false>>());
  domain.Add(new Operator<PostAttentionKernel<kPrecision, true>>());
  domain.Add(new Operator<EmbedKernel<kPrecision>>());
}

}  // namespace

void add_row_operators(Ort::CustomOpDomain& domain) {
  add<Precision::kFloat>(domain);
  add<Precision::kHalf>(domain);
}

}  // namespace cuda
}  // namespace crisp
