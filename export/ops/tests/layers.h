// Random linear layers for the row operators, and the same computed in plain loops.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "rows.h"

namespace crisp {

struct NamedKernel {
  std::string name;
  const RowKernel* kernel;
};

// Those that this processor runs, and one with the layout of the AVX-512 kernels.
std::vector<NamedKernel> row_kernels();

// Runs all tasks on this thread, the last one first.
extern const ParallelFor kOneAfterTheOther;

using FloatRows = std::vector<float>;

// Weights are whole numbers, so that those of floats are those of bytes.
struct Layer {
  int64_t inputs;
  int64_t outputs;
  std::vector<int8_t> bytes;
  FloatRows floats;
  FloatRows scale;
  FloatRows bias;

  std::unique_ptr<PackedLinear> packed(const RowKernel& kernel, bool quantised) const;
};

Layer random_layer(std::mt19937& random, int64_t inputs, int64_t outputs);

// The layers between two attentions, and one LayerNorm for both places.
struct PostAttentionLayers {
  Layer out, inner, outer, qkv;
  LayerNorm norm;

  PostAttentionWeights packed(const RowKernel& kernel, bool quantised) const;
};

PostAttentionLayers random_post_attention(std::mt19937& random, int64_t hidden, int64_t inner);

// `count` standard normal values.
FloatRows random_rows(std::mt19937& random, int64_t count);

double error_function_gelu(double x);

FloatRows plain_linear(const Layer& layer, const FloatRows& x, int64_t rows, bool quantised);
FloatRows plain_norm(const FloatRows& x, const FloatRows& y, int64_t width, const LayerNorm& norm);

double largest_difference(const FloatRows& a, const FloatRows& b);

// y of linear(); checks that nothing is written past its end.
FloatRows run_linear(const RowKernel& kernel, const Layer& layer, const FloatRows& x, int64_t rows,
                     bool quantised);

}  // namespace crisp
