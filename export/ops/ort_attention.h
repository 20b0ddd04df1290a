// The attributes and the shapes of crisp::SparseAttention, for the libraries of CPU and GPU.
//
// Only ort_*.cc include this.
#pragma once

#include <string>

#include "ort_common.h"
#include "pattern.h"

namespace crisp {

inline Pattern pattern_of(const Ort::ConstKernelInfo& info) {
  const std::string name = text_attribute(info, "pattern", "");
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

inline Queries queries_of(const Ort::ConstKernelInfo& info) {
  const std::string name = text_attribute(info, "queries", "all");
  if (name != "all" && name != "first") {
    throw std::invalid_argument("attribute queries must be all or first, got '" + name + "'");
  }
  return name == "all" ? Queries::kAll : Queries::kFirst;
}

// Heads of a node; throws std::invalid_argument unless there are any.
inline int64_t num_heads_of(const Ort::ConstKernelInfo& info) {
  const int64_t num_heads = attribute(info, "num_heads", 0);
  if (num_heads < 1) {
    throw std::invalid_argument("attribute num_heads must be positive, got " +
                                std::to_string(num_heads));
  }
  return num_heads;
}

// Throws std::invalid_argument unless qkv is [T, 3H] with as many heads, and cu_seqlens [B + 1].
inline void check_attention_shapes(const Shape& qkv, const Shape& cu_seqlens, int64_t num_heads) {
  // Compared first, since three times a number from a file may be more than there are.
  if (qkv.size() != 2 || qkv[1] / 3 < num_heads || qkv[1] % (3 * num_heads) != 0) {
    throw std::invalid_argument("qkv must be [T, 3H] with H a multiple of num_heads " +
                                std::to_string(num_heads) + ", got " + text_of(qkv));
  }
  if (cu_seqlens.size() != 1) {
    throw std::invalid_argument("cu_seqlens must be [B + 1], got " + text_of(cu_seqlens));
  }
}

inline bool first_queries_only(OrtShapeInferContext* context) {
  const OrtOpAttr* attribute = nullptr;  // the context's own
  Ort::Status found(Ort::GetApi().ShapeInferContext_GetAttribute(context, "queries", &attribute));
  char text[sizeof("first")] = {};  // a longer text is another one
  size_t size = 0;
  if (!found.IsOK()) return false;
  Ort::Status read(
      Ort::GetApi().ReadOpAttr(attribute, ORT_OP_ATTR_STRING, text, sizeof(text), &size));
  return read.IsOK() && std::string(text) == "first";
}

// context is of the type of qkv; received is always float.
inline void infer_attention(OrtShapeInferContext* context) {
  const InferredShape qkv = input_shape(context, 0);
  if (qkv.sizes.size() != 2) return;  // unknown, or wrong: then compute() refuses it
  const bool first_only = first_queries_only(context);
  const int64_t hidden = qkv.sizes[1] > 0 ? qkv.sizes[1] / 3 : -1;
  set_output_shape(context, 0, input_type(context, 0),
                   {{first_only ? -1 : qkv.sizes[0], hidden},
                    {first_only ? "" : qkv.symbols[0], ""}});  // [B, H] or [T, H]
  set_output_shape(context, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                   {{qkv.sizes[0]}, {qkv.symbols[0]}});
}

}  // namespace crisp
