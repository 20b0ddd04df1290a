// What one call of crisp::SparseAttention reads and writes; shapes in sparse_attention.h.
#pragma once

#include <stdint.h>

#include "pattern.h"

namespace crisp {

struct Operands {
  const float* qkv;
  const int32_t* cu_seqlens;
  int64_t batch;  // B: cu_seqlens has batch + 1 entries
  int64_t num_heads;
  int64_t head_size;
  Pattern pattern;
  Queries queries;
  float* context;
  float* received;    // null where nobody asks for it
  bool bf16 = false;  // whether products may be of bfloat16, where the processor multiplies it
};

}  // namespace crisp
