#include "linear.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace linears {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

// Symmetric int8 with a scale a column, and the sum of each column's bytes.
struct Bytes {
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<float> column_sums;
};

Bytes quantize_columns(const std::vector<float>& weight, int64_t inner, int64_t columns,
                       int steps) {
  Bytes bytes{std::vector<int8_t>(weight.size()), std::vector<float>(columns, 0.0f),
              std::vector<float>(columns, 0.0f)};
  for (int64_t i = 0; i < inner * columns; ++i) {
    float& largest = bytes.scales[i % columns];
    largest = std::max(largest, std::fabs(weight[i]));
  }
  for (float& scale : bytes.scales) scale = scale > 0.0f ? scale / static_cast<float>(steps) : 1.0f;
  for (int64_t i = 0; i < inner * columns; ++i) {
    const float value = std::nearbyint(weight[i] / bytes.scales[i % columns]);
    bytes.values[i] = static_cast<int8_t>(value);
    bytes.column_sums[i % columns] += value;
  }
  return bytes;
}

}  // namespace

Linear::Linear(Backend backend, Precision precision, LinearShape shape,
               const std::vector<float>& weight, const std::vector<float>& bias, ByteScale input,
               ByteScale output)
    : backend_(backend),
      precision_(precision),
      shape_(shape),
      input_(input),
      output_(output),
      bias_(bias),
      engine_(dnnl::engine::kind::cpu, 0),
      stream_(engine_) {
  if (precision == Precision::kRows) {
    bias_.assign(bias.size(), 0.0f);
    shape_.gelu = shape_.residual = shape_.byte_output = false;
  }
  if (backend == Backend::kMatmul) {
    build<dnnl::matmul>(weight);
  } else {
    build<dnnl::convolution_forward>(weight);
  }
}

// [rows, width], or {image, channels, height, width} = {1, width, rows, 1} with channels last.
memory::desc Linear::rows_desc(int64_t width, Type type) const {
  if (backend_ == Backend::kMatmul) return {{shape_.rows, width}, type, Tag::ab};
  return {{1, width, shape_.rows, 1}, type, Tag::nhwc};
}

memory Linear::owned(const std::vector<float>& values, const memory::desc& desc) {
  memory result(desc, engine_);
  std::copy(values.begin(), values.end(), static_cast<float*>(result.get_data_handle()));
  return result;
}

// x = scale (byte - zero), so the product of the bytes must lose zero * column sum: through the
// bias, which costs [columns] products a run rather than oneDNN's [rows, columns].
void Linear::set_input_scale(float scale) {
  *static_cast<float*>(arguments_[DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC].get_data_handle()) = scale;
  float* bias = static_cast<float*>(arguments_[DNNL_ARG_BIAS].get_data_handle());
  for (size_t n = 0; n < bias_.size(); ++n) bias[n] = bias_[n] - scale * zero_products_[n];
}

template <typename Primitive>
void Linear::build(const std::vector<float>& weight) {
  constexpr bool kMatmul = std::is_same_v<Primitive, dnnl::matmul>;
  const bool quantized = precision_ != Precision::kFloat32;
  const int64_t inner = shape_.inner, columns = shape_.columns;
  const Bytes bytes = quantize_columns(weight, inner, columns, shape_.weight_steps);
  const memory::desc one({1}, Type::f32, Tag::a), each({columns}, Type::f32, Tag::a);
  const memory::desc one_row({1, columns}, Type::f32, Tag::ab);
  dnnl::primitive_attr attributes;
  if (quantized) {
    attributes.set_scales_mask(DNNL_ARG_SRC, 0);
    attributes.set_scales_mask(DNNL_ARG_WEIGHTS, kMatmul ? 1 << 1 : 1 << 0);
    arguments_[DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC] = owned({1.0f}, one);
    arguments_[DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS] = owned(bytes.scales, each);
  }
  if (quantized && shape_.byte_output) {
    attributes.set_scales_mask(DNNL_ARG_DST, 0);
    attributes.set_zero_points_mask(DNNL_ARG_DST, 0);
    arguments_[DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST] = owned({output_.scale}, one);
    memory zero({{1}, Type::s32, Tag::a}, engine_);
    *static_cast<int32_t*>(zero.get_data_handle()) = output_.zero;
    arguments_[DNNL_ARG_ATTR_ZERO_POINTS | DNNL_ARG_DST] = zero;
  }
  dnnl::post_ops post;
  if (shape_.gelu) post.append_eltwise(dnnl::algorithm::eltwise_gelu_erf, 0.0f, 0.0f);
  if (shape_.residual) {
    const memory::desc added = rows_desc(columns, Type::f32);
    residual_argument_ = DNNL_ARG_ATTR_MULTIPLE_POST_OP(post.len()) | DNNL_ARG_SRC_1;
    post.append_binary(dnnl::algorithm::binary_add, added);
    arguments_[residual_argument_] = memory(added, engine_, DNNL_MEMORY_NONE);
  }
  attributes.set_post_ops(post);

  const memory::desc input = rows_desc(inner, quantized ? Type::u8 : Type::f32);
  const memory::desc output = rows_desc(columns, shape_.byte_output ? Type::u8 : Type::f32);
  const Type weight_type = quantized ? Type::s8 : Type::f32;
  const auto pd = [&] {
    if constexpr (kMatmul) {
      return dnnl::matmul::primitive_desc(engine_, input, {{inner, columns}, weight_type, Tag::any},
                                          one_row, output, attributes);
    } else {
      return dnnl::convolution_forward::primitive_desc(
          engine_, dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, input,
          {{columns, inner, 1, 1}, weight_type, Tag::any}, each, output, {1, 1}, {0, 0}, {0, 0},
          attributes);
    }
  }();
  implementation_ = pd.impl_info_str();
  primitive_ = Primitive(pd);

  // Row-major [inner, columns]; as {columns, inner, 1, 1} the outer dimension comes second.
  const memory::desc plain = kMatmul ? memory::desc({inner, columns}, weight_type, Tag::ab)
                                     : memory::desc({columns, inner, 1, 1}, weight_type, Tag::bcda);
  memory source(plain, engine_), packed(pd.weights_desc(), engine_);
  if (quantized) {
    std::copy(bytes.values.begin(), bytes.values.end(),
              static_cast<int8_t*>(source.get_data_handle()));
  } else {
    std::copy(weight.begin(), weight.end(), static_cast<float*>(source.get_data_handle()));
  }
  dnnl::reorder(source, packed).execute(stream_, source, packed);
  stream_.wait();
  arguments_[DNNL_ARG_WEIGHTS] = packed;
  arguments_[DNNL_ARG_BIAS] = owned(bias_, kMatmul ? one_row : each);
  arguments_[DNNL_ARG_SRC] = memory(input, engine_, DNNL_MEMORY_NONE);
  arguments_[DNNL_ARG_DST] = memory(output, engine_, DNNL_MEMORY_NONE);
  if (quantized) {
    zero_products_.resize(columns);
    for (int64_t n = 0; n < columns; ++n) {
      zero_products_[n] = bytes.scales[n] * static_cast<float>(input_.zero) * bytes.column_sums[n];
    }
    set_input_scale(precision_ == Precision::kStatic ? input_.scale : 1.0f);
  }
}

void Linear::run(const void* input, float input_scale, const float* residual, void* output) {
  if (precision_ == Precision::kTensor) set_input_scale(input_scale);
  arguments_[DNNL_ARG_SRC].set_data_handle(const_cast<void*>(input));
  arguments_[DNNL_ARG_DST].set_data_handle(output);
  if (residual_argument_ >= 0) {
    arguments_[residual_argument_].set_data_handle(const_cast<float*>(residual));
  }
  primitive_.execute(stream_, arguments_);
  stream_.wait();
}

}  // namespace linears
