// The operators that work on each token by itself, free of any runtime's types:
//
//   Linear          y = x·W + b                                                    [T, N]
//   PostAttention   all that a transformer layer does between two attentions:      [T, H]
//                     attended = LayerNorm(hidden + context·Wo + bo)
//                     output   = LayerNorm(attended + gelu(attended·W1 + b1)·W2 + b2)
//                   and, where asked for, the next layer's q, k and v of it        [T, 3H]
//   Embed           LayerNorm(word embedding + position embedding)                 [T, H]
//
// A row's result depends on nothing but that row, to the last bit: not on the batch, not on the
// number of threads.
//
// Weights are fp32, or int8 with a scale for each output column. With int8 weights each row x is
// quantised when it arrives (a scale and a zero point for each token), so that the products are
// sums of integers. 7 bits of each are used: x in [0, 127], weights in [-64, 64]. Then four
// products fit into the 16-bit sums of processors without VNNI (127 · 64 · 4 < 2^15), where full
// 8-bit ones would saturate, so that the same rows of integers have the same sums on every
// processor. Results may differ all the same, by rounding: a value between two levels may fall to
// either where a processor multiplies and adds at once and another does not, and a sum beyond 2^24,
// which takes more than 2,000 inputs, is rounded as it becomes a float.
//
// A row with NaN or infinity gives a row of them, and touches no other. With int8 weights, a row
// whose values are all below 1e-35 may count as zeros.
#pragma once

#include <stdint.h>

#include <memory>
#include <vector>

#include "packed_linear.h"
#include "processors.h"
#include "row_kernel.h"
#include "sparse_attention.h"

namespace crisp {

struct LayerNorm {
  std::vector<float> gamma;  // [H]
  std::vector<float> beta;   // [H]
  float epsilon;

  NormWeights weights() const { return {gamma.data(), beta.data(), epsilon}; }
};

// The weights of PostAttention; `qkv` is null where q, k and v are not asked for.
struct PostAttentionWeights {
  std::shared_ptr<const PackedLinear> out, inner, outer, qkv;
  LayerNorm attended, output;
};

// y [rows, N] from x [rows, K]. Here and below, work is cut for `threads` threads: more than
// `parallel_for` has are slower, fewer leave some idle, and the result is the same.
void linear(const RowKernel& kernel, const PackedLinear& layer, const float* x, int64_t rows,
            float* y, const ParallelFor& parallel_for, int64_t threads = processors());

// output [rows, H] and, where the weights have it, qkv [rows, 3H]; from context and hidden
// [rows, H].
void post_attention(const RowKernel& kernel, const PostAttentionWeights& weights,
                    const float* context, const float* hidden, int64_t rows, float* output,
                    float* qkv, const ParallelFor& parallel_for, int64_t threads = processors());

// Tables of embeddings, float or int8, with a scale for each row: [count, H] and [count].
struct EmbeddingTable {
  const float* floats;  // one of the two is null
  const int8_t* bytes;
  const float* scale;
  int64_t count;
};

// hidden [T, H] of input_ids [T]; positions count from 0 in each sequence. `cu_seqlens` [B + 1] has
// been checked. Throws std::invalid_argument for an id outside the words, or a sequence with more
// tokens than there are positions.
void embed(const RowKernel& kernel, const EmbeddingTable& words, const EmbeddingTable& positions,
           const LayerNorm& norm, const int64_t* input_ids, const int32_t* cu_seqlens,
           int64_t batch, float* hidden, const ParallelFor& parallel_for,
           int64_t threads = processors());

}  // namespace crisp
