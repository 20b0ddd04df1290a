// The k-th highest of each of 16 rows of numbers in shared memory, exactly: bit by bit from the
// top, the largest value that at least k of the row reach. Eight threads count for each row.
#pragma once

#include "block_program.h"
#include "half.h"

namespace crisp {
namespace cuda {

constexpr int kRows = 16;         // of a block that works on whole rows
constexpr int kThreadsOfRow = 8;  // that count, add up or compare for one of them
constexpr int kRowThreads = kRows * kThreadsOfRow;

CRISP_HD int row_of_thread(int thread) { return thread / kThreadsOfRow; }

// Calls body(i) for the numbers [0, count) of its row that are this thread's.
template <class Body>
CRISP_HD void for_own(int thread, int count, const Body& body) {
  for (int i = thread % kThreadsOfRow; i < count; i += kThreadsOfRow) body(i);
}

// One number from each thread, for the others of its row to read after a barrier.
template <class Value>
struct OfRow {
  Value value[kRows][kThreadsOfRow];

  CRISP_HD Value& of(int thread) { return value[row_of_thread(thread)][thread % kThreadsOfRow]; }

  CRISP_HD Value sum(int row) const {
    Value result = 0;
    for (int i = 0; i < kThreadsOfRow; ++i) result += value[row][i];
    return result;
  }
  CRISP_HD Value most(int row) const {
    Value result = value[row][0];
    for (int i = 1; i < kThreadsOfRow; ++i) result = highest(result, value[row][i]);
    return result;
  }
};

struct ThresholdShared {
  OfRow<int32_t> reached[2];
};

// Leaves in own.threshold, for each thread, the k-th highest of the `count` numbers of its row, in
// the order of `sortable`; undefined where the row has a NaN. Rows beyond `rows` are left out.
template <class Registers, class Block>
CRISP_HD void find_threshold(Block& block, ThresholdShared& shared, const float* values,
                             int row_stride, int rows, int count, int k) {
  block.each_thread([&](int, Registers& own) { own.candidate = 0; });
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t step = 1u << bit;
    block.each_thread([&](int thread, Registers& own) {
      if (bit < 31 && shared.reached[(bit + 1) % 2].sum(row_of_thread(thread)) >= k) {
        own.candidate |= step << 1;
      }
      int32_t reached = 0;
      if (row_of_thread(thread) < rows) {
        const float* const row = values + row_of_thread(thread) * row_stride;
        for_own(thread, count,
                [&](int i) { reached += sortable(row[i]) >= (own.candidate | step) ? 1 : 0; });
      }
      shared.reached[bit % 2].of(thread) = reached;
    });
  }
  block.each_thread([&](int thread, Registers& own) {
    if (shared.reached[0].sum(row_of_thread(thread)) >= k) own.candidate |= 1u;
    own.threshold = from_sortable(own.candidate);
  });
}

}  // namespace cuda
}  // namespace crisp
