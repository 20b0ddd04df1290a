// The ONNX Runtime side of the row operators (rows.h): crisp::Linear, crisp::PostAttention,
// crisp::PostAttentionQkv and crisp::Embed.
//
//   Linear            x, weight [K, N], scale [N], bias [N] -> y
//   PostAttention     context, hidden,
//                     out weight, scale, bias; gamma, beta;
//                     inner weight, scale, bias; outer weight, scale, bias; gamma, beta -> output
//   PostAttentionQkv  the same, and qkv weight, scale, bias -> output, qkv
//   Embed             input_ids, cu_seqlens, words [V, H], scale [V], positions [P, H], scale [P],
//                     gamma, beta -> hidden
//
// Weights and tables are float or int8, and constants of the model: they are packed once, when the
// session is made. Attribute `epsilon`, of the LayerNorms.
#include <memory>

#include "isa.h"
#include "ort_common.h"
#include "rows.h"
#include "shared_linear.h"

namespace crisp {
namespace {

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;

// The constants of a node, taken one after the other.
class Constants {
 public:
  Constants(const Ort::ConstKernelInfo& info, size_t first) : info_(info), next_(first) {}

  Ort::ConstValue take(const char* name) {
    int is_constant = 0;
    const Ort::ConstValue value = info_.GetTensorConstantInput(next_++, &is_constant);
    if (!is_constant) {
      throw std::invalid_argument(std::string(name) + " must be a constant of the model");
    }
    return value;
  }

  const float* take_floats(const char* name, int64_t size) {
    const Ort::ConstValue value = take(name);
    check_shape(name, value, {size});
    if (type_of(value) != kFloat) throw std::invalid_argument(std::string(name) + " must be float");
    return value.GetTensorData<float>();
  }

  // weight [inputs, outputs], scale and bias [outputs]; a negative size admits any.
  std::shared_ptr<const PackedLinear> take_linear(const RowKernel& kernel, int64_t inputs,
                                                  int64_t outputs) {
    const Ort::ConstValue weight = take("weight");
    check_shape("weight", weight, {inputs, outputs});
    const Shape shape = shape_of(weight);
    const float* const scale = take_floats("scale", shape[1]);
    const float* const bias = take_floats("bias", shape[1]);
    if (type_of(weight) == kInt8) {
      return shared(std::make_unique<PackedLinear>(kernel, weight.GetTensorData<int8_t>(), scale,
                                                   bias, shape[0], shape[1]));
    }
    if (type_of(weight) != kFloat) throw std::invalid_argument("weight must be float or int8");
    return shared(std::make_unique<PackedLinear>(kernel, weight.GetTensorData<float>(), scale, bias,
                                                 shape[0], shape[1]));
  }

  LayerNorm take_norm(int64_t width) {
    const float* const gamma = take_floats("gamma", width);
    const float* const beta = take_floats("beta", width);
    return {{gamma, gamma + width}, {beta, beta + width}, info_.GetAttribute<float>("epsilon")};
  }

  EmbeddingTable take_table(const char* name) {
    const Ort::ConstValue table = take(name);
    check_shape(name, table, {-1, -1});
    const int64_t count = shape_of(table)[0];
    if (type_of(table) == kInt8) {
      return {nullptr, table.GetTensorData<int8_t>(), take_floats("scale", count), count};
    }
    if (type_of(table) != kFloat) {
      throw std::invalid_argument(std::string(name) + " must be float or int8");
    }
    return {table.GetTensorData<float>(), nullptr, take_floats("scale", count), count};
  }

 private:
  static ONNXTensorElementDataType type_of(const Ort::ConstValue& value) {
    return value.GetTensorTypeAndShapeInfo().GetElementType();
  }

  const Ort::ConstKernelInfo& info_;
  size_t next_;
};

class LinearKernel {
 public:
  static constexpr const char* kName = "Linear";
  static constexpr size_t kInputs = 4;
  static constexpr size_t kOutputs = 1;

  explicit LinearKernel(const Ort::ConstKernelInfo& info) : kernel_(row_kernel_for(choose_isa())) {
    layer_ = Constants(info, 1).take_linear(kernel_, -1, -1);
  }

  void compute(const Ort::KernelContext& context) const {
    const LinearWeights& weights = layer_->weights();
    const Ort::ConstValue x = context.GetInput(0);
    check_shape("x", x, {-1, weights.inputs});
    const float* const elements = elements_of<float>("x", x);
    const int64_t rows = shape_of(x)[0];
    Ort::UnownedValue y = context.GetOutput(0, {rows, weights.outputs});
    linear(kernel_, *layer_, elements, rows, y.GetTensorMutableData<float>(), threads_of(context),
           threads_to_cut_for());
  }

  static void infer(OrtShapeInferContext* context) {
    const InferredShape x = input_shape(context, 0);
    const InferredShape weight = input_shape(context, 1);
    if (x.sizes.size() != 2 || weight.sizes.size() != 2) return;
    set_output_shape(context, 0, kFloat, {{x.sizes[0], weight.sizes[1]}, {x.symbols[0], ""}});
  }

 private:
  const RowKernel& kernel_;
  std::shared_ptr<const PackedLinear> layer_;
};

template <bool kQkv>
class PostAttentionKernel {
 public:
  static constexpr const char* kName = kQkv ? "PostAttentionQkv" : "PostAttention";
  static constexpr size_t kInputs = kQkv ? 18 : 15;
  static constexpr size_t kOutputs = kQkv ? 2 : 1;

  explicit PostAttentionKernel(const Ort::ConstKernelInfo& info)
      : kernel_(row_kernel_for(choose_isa())) {
    Constants constants(info, 2);
    weights_.out = constants.take_linear(kernel_, -1, -1);
    width_ = weights_.out->weights().outputs;
    weights_.attended = constants.take_norm(width_);
    weights_.inner = constants.take_linear(kernel_, width_, -1);
    weights_.outer = constants.take_linear(kernel_, weights_.inner->weights().outputs, width_);
    weights_.output = constants.take_norm(width_);
    if (kQkv) weights_.qkv = constants.take_linear(kernel_, width_, -1);
  }

  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue attended = context.GetInput(0);
    const Ort::ConstValue hidden = context.GetInput(1);
    check_shape("context", attended, {-1, weights_.out->weights().inputs});
    const int64_t rows = shape_of(attended)[0];
    check_shape("hidden", hidden, {rows, width_});
    Ort::UnownedValue output = context.GetOutput(0, {rows, width_});
    float* qkv = nullptr;
    if (kQkv) {
      const int64_t outputs = weights_.qkv->weights().outputs;
      qkv = context.GetOutput(1, {rows, outputs}).template GetTensorMutableData<float>();
    }
    post_attention(kernel_, weights_, elements_of<float>("context", attended),
                   elements_of<float>("hidden", hidden), rows, output.GetTensorMutableData<float>(),
                   qkv, threads_of(context), threads_to_cut_for());
  }

  static void infer(OrtShapeInferContext* context) {
    const InferredShape hidden = input_shape(context, 1);
    if (hidden.sizes.size() != 2) return;
    set_output_shape(context, 0, kFloat, hidden);
    if (!kQkv) return;
    const InferredShape weight = input_shape(context, 15);
    if (weight.sizes.size() != 2) return;
    set_output_shape(context, 1, kFloat,
                     {{hidden.sizes[0], weight.sizes[1]}, {hidden.symbols[0], ""}});
  }

 private:
  const RowKernel& kernel_;
  int64_t width_ = 0;
  PostAttentionWeights weights_;
};

class EmbedKernel {
 public:
  static constexpr const char* kName = "Embed";
  static constexpr size_t kInputs = 8;
  static constexpr size_t kOutputs = 1;

  explicit EmbedKernel(const Ort::ConstKernelInfo& info) : kernel_(row_kernel_for(choose_isa())) {
    Constants constants(info, 2);
    words_ = constants.take_table("words");
    positions_ = constants.take_table("positions");
    const auto width = [&info](size_t input) {
      int is_constant = 0;
      return shape_of(info.GetTensorConstantInput(input, &is_constant))[1];
    };
    if (width(2) != width(4)) {
      throw std::invalid_argument("words and positions must be equally wide, got " +
                                  std::to_string(width(2)) + " and " + std::to_string(width(4)));
    }
    norm_ = constants.take_norm(width(2));
  }

  void compute(const Ort::KernelContext& context) const {
    const Ort::ConstValue ids = context.GetInput(0);
    const Ort::ConstValue offsets = context.GetInput(1);
    check_shape("input_ids", ids, {-1});
    check_shape("cu_seqlens", offsets, {-1});
    const int64_t* const input_ids = elements_of<int64_t>("input_ids", ids);
    const int64_t tokens = shape_of(ids)[0];
    const int64_t count = shape_of(offsets)[0];
    const int32_t* const cu_seqlens = elements_of<int32_t>("cu_seqlens", offsets);
    check_cu_seqlens(cu_seqlens, count, tokens);
    Ort::UnownedValue hidden =
        context.GetOutput(0, {tokens, static_cast<int64_t>(norm_.gamma.size())});
    embed(kernel_, words_, positions_, norm_, input_ids, cu_seqlens, count - 1,
          hidden.GetTensorMutableData<float>(), threads_of(context), threads_to_cut_for());
  }

  static void infer(OrtShapeInferContext* context) {
    const InferredShape ids = input_shape(context, 0);
    const InferredShape words = input_shape(context, 2);
    if (ids.sizes.size() != 1 || words.sizes.size() != 2) return;
    set_output_shape(context, 0, kFloat, {{ids.sizes[0], words.sizes[1]}, {ids.symbols[0], ""}});
  }

 private:
  const RowKernel& kernel_;
  EmbeddingTable words_{};  // they stay in the memory of the session
  EmbeddingTable positions_{};
  LayerNorm norm_;
};

template <typename Kernel>
struct RowOp : Ort::CustomOpBase<RowOp<Kernel>, Guarded<Kernel>, /*WithStatus=*/true> {
  RowOp() {
    this->InferOutputShapeFn = [](const OrtCustomOp*,
                                  OrtShapeInferContext* context) noexcept -> OrtStatusPtr {
      return status_of(Kernel::kName, [&] { Kernel::infer(context); });
    };
  }

  const char* GetName() const { return Kernel::kName; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return status_of(Kernel::kName, [&] { *kernel = new Guarded<Kernel>(info); });
  }

  size_t GetInputTypeCount() const { return Kernel::kInputs; }
  ONNXTensorElementDataType GetInputType(size_t) const {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // any: the kernel looks
  }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t) const {
    return INPUT_OUTPUT_REQUIRED;
  }

  size_t GetOutputTypeCount() const { return Kernel::kOutputs; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kFloat; }
};

}  // namespace

void add_row_operators(Ort::CustomOpDomain& domain) {
  domain.Add(new RowOp<LinearKernel>());
  domain.Add(new RowOp<PostAttentionKernel<false>>());
  domain.Add(new RowOp<PostAttentionKernel<true>>());
  domain.Add(new RowOp<EmbedKernel>());
}

}  // namespace crisp
