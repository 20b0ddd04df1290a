// received [T]: the sums of attend_rows.h over heads and blocks, always in the same order.
#pragma once

#include "segments.h"

namespace crisp {
namespace cuda {

struct SumReceivedArguments {
  Table<Segment> table;  // a unit is 128 tokens of a sequence
  const float* partial;
  float* received;
  int64_t partials;  // floats of one head
  int32_t num_heads;
  int32_t rows_of_block;  // queries that each partial sum is over
  bool first_only;
};

struct SumReceived {
  static constexpr int kThreads = 128;
  using Arguments = SumReceivedArguments;
  struct Registers {};

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    const Segment& segment = arguments.table.of(block.unit());
    const int queries = arguments.first_only ? 1 : segment.length;
    const int parts = (queries - 1) / arguments.rows_of_block + 1;
    block.each_thread([&](int thread, Registers&) {
      const int key = (block.unit() - segment.first_unit) * kThreads + thread;
      if (key >= segment.length) return;
      float sum = 0.0f;
      for (int head = 0; head < arguments.num_heads; ++head) {
        const float* const partial =
            arguments.partial + head * arguments.partials + segment.first_partial + key;
        for (int part = 0; part < parts; ++part) {
          sum += partial[static_cast<int64_t>(part) * segment.length];
        }
      }
      arguments.received[segment.first_token + key] = sum / static_cast<float>(arguments.num_heads);
    });
  }
};

}  // namespace cuda
}  // namespace crisp
