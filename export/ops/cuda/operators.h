// The operators on a GPU, free of any runtime's types. What they compute is said in
// sparse_attention.h, prune_tokens.h and rows.h; here tensors are float or half, `cu_seqlens` and
// `original_cu_seqlens` lie in host memory and have been checked, everything else on the device.
#pragma once

#include <stdint.h>

#include "device.h"
#include "pattern.h"
#include "prune_tokens.h"

namespace crisp {
namespace cuda {

struct Attention {
  Precision precision;  // of qkv and context
  const void* qkv;
  const int32_t* cu_seqlens;
  int64_t batch;
  int64_t num_heads;
  int64_t head_size;  // at most 128
  Pattern pattern;
  Queries queries;
  void* context;
  float* received;  // null where nobody asks for it
};

void sparse_attention(const Device& device, const Attention& call);

// Their number, T', follows from the offsets.
int64_t count_kept(const PruneRule& rule, const int32_t* cu_seqlens,
                   const int32_t* original_cu_seqlens, int64_t batch);

// kept [T'] and kept_cu_seqlens [B + 1], both on the device.
void prune_tokens(const Device& device, const PruneRule& rule, const float* received,
                  const int32_t* cu_seqlens, const int32_t* original_cu_seqlens, int64_t batch,
                  int64_t* kept, int32_t* kept_cu_seqlens);

struct Linear {
  const void* weight;  // [inputs, outputs], of the precision of the call
  const float* scale;  // [outputs]
  const float* bias;   // [outputs]
  int64_t inputs;
  int64_t outputs;
};

struct Norm {
  const float* gamma;
  const float* beta;
  float epsilon;
};

// y [rows, outputs].
void linear(const Device& device, Precision precision, const Linear& layer, const void* x,
            int64_t rows, void* y);

struct PostAttention {
  Precision precision;
  Linear out, inner, outer;
  const Linear* qkv;  // null where q, k and v are not asked for
  Norm attended, output_norm;
  const void* context;
  const void* hidden;
  int64_t rows;
  void* output;
  void* qkv_output;
};

void post_attention(const Device& device, const PostAttention& call);

struct Embedding {
  Precision precision;  // of the tables and of hidden
  const void* words;
  const float* word_scale;
  int64_t word_count;
  const void* positions;
  const float* position_scale;
  int64_t position_count;
  int64_t width;
  Norm norm;
  const int64_t* input_ids;
  const int32_t* cu_seqlens;
  int64_t batch;
  void* hidden;
};

// Throws std::invalid_argument for a sequence with more tokens than there are positions. An id
// outside the words gives a row of NaN.
void embed(const Device& device, const Embedding& call);

}  // namespace cuda
}  // namespace crisp
