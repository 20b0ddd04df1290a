// The interface between the schedule (sparse_attention.cc) and the kernel (kernel.cc).
//
// kernel.cc is compiled once per instruction set, each time into another namespace. It and all it
// includes must stay free of inline functions with external linkage, those of the C++ library
// included: the linker keeps one copy of each, and that may be the AVX-512 one, which would then
// run on a processor without AVX-512.
#pragma once

#include <stdint.h>

#include "operands.h"

namespace crisp {

// Bounds over all instruction sets, for the size of the scratch memory.
constexpr int64_t kMaxPanel = 32;     // keys scored together: two vectors
constexpr int64_t kMinPanel = 8;      // the same, of the narrowest vectors
constexpr int64_t kMaxTileRows = 16;  // query rows computed together

// Consecutive query rows of one sequence and head. Row numbers are positions in the sequence.
struct QueryRows {
  int64_t first_token;    // of the sequence, in the pack
  int64_t length;         // of the sequence
  int64_t first_context;  // the row of `context` that belongs to the sequence's first query
  int64_t head;
  int64_t row_begin;
  int64_t row_end;
  int64_t kept;    // what scores choose, before ties: of `length` keys, or of `blocks` blocks
  int64_t blocks;  // blocks of the sequence where these rows choose among them, else 0
  float kept_deviations;  // where the kept-th score would lie, in standard deviations above the
                          // mean, if scores were normal: a first guess, of no effect on the result
};

// What one thread does in one go: `count` items, those of one sequence and head side by side so
// that keys and values are packed once for all of them.
struct Chunk {
  const QueryRows* rows;
  int64_t count;
  float* scratch;   // scratch_floats(longest sequence, most blocks, head_size) floats, 64-byte
                    // aligned
  float* received;  // this chunk's own sum, or null; kMaxPanel floats longer than its tokens
  int64_t received_begin;  // the token that received[0] stands for
};

using AttendChunk = void (*)(const Operands& operands, const Chunk& chunk);

static constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// What Workspace in kernel.cc lays out.
static constexpr int64_t scratch_floats(int64_t longest, int64_t blocks, int64_t head_size) {
  const int64_t keys = round_up(longest, kMaxPanel);
  const int64_t wide = round_up(head_size, kMaxPanel);
  const int64_t panel_lists = 4 * round_up(keys / kMinPanel, kMaxPanel);
  const int64_t one_sequence = keys * (2 * wide + kMaxTileRows + 1) + panel_lists;
  return one_sequence + round_up(blocks, kMaxPanel) * (wide + 2) + (kMaxTileRows + 1) * wide;
}

namespace amx {
void attend_chunk(const Operands& operands, const Chunk& chunk);
}
namespace avx512bf16 {
void attend_chunk(const Operands& operands, const Chunk& chunk);
}
namespace avx512 {
void attend_chunk(const Operands& operands, const Chunk& chunk);
}
namespace avx2 {
void attend_chunk(const Operands& operands, const Chunk& chunk);
}
namespace baseline {
void attend_chunk(const Operands& operands, const Chunk& chunk);
}

}  // namespace crisp
