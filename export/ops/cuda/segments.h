// The sequences of a packed batch as the blocks of a launch find them.
//
// The offsets lie in host memory, so the host knows every length, and the table travels to the
// device as an argument of the kernel: no copy, no allocation, no synchronisation. An argument may
// have 4 kB, so a large batch is a few launches.
#pragma once

#include "block_program.h"

namespace crisp {
namespace cuda {

constexpr int kTableEntries = 120;

// What entry e has of a launch's blocks: [first_unit of e, first_unit of e + 1).
template <class Entry>
struct Table {
  int32_t count;
  Entry entries[kTableEntries];

  // The entry of block `unit`.
  CRISP_HD const Entry& of(int unit) const {
    int low = 0;
    int high = count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (entries[middle].first_unit <= unit) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return entries[low];
  }
};

// One sequence, never an empty one.
struct Segment {
  int32_t first_unit;
  int32_t first_token;
  int32_t length;
  int32_t first_row;      // of the context: the first token, or the number of the sequence
  int32_t kept;           // keys that a row keeps by score (topk), or blocks that a block keeps
  int32_t first_block;    // blocktopk: blocks of the sequences before
  int32_t first_partial;  // floats of one head, of the sequences before, see attend_rows.h
};

struct PrunedSegment {
  int32_t first_unit;
  int32_t sequence;
  int32_t first_token;
  int32_t live;
  int32_t first_kept;
  int32_t kept;
};

}  // namespace cuda
}  // namespace crisp
