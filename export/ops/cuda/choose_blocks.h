// blocktopk: which blocks of keys each block of queries sees, by the dot products of mean queries
// and mean keys (sparse_attention.h says the rule). Two programs: means, then bits.
#pragma once

#include "attend_tiles.h"
#include "threshold.h"

namespace crisp {
namespace cuda {

// Mean q and mean k of one block of one head: means [heads, blocks of all sequences, 2, head_size].
struct PoolBlocksArguments {
  Table<Segment> table;  // a unit is a block of a sequence
  const void* qkv;
  float* means;
  int32_t blocks;  // of all sequences
  int32_t size;    // tokens of a block
  int32_t hidden;
  int32_t head_size;
};

template <class T>
struct PoolBlocks {
  static constexpr int kThreads = 128;
  using Arguments = PoolBlocksArguments;
  struct Registers {};

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    const Segment& segment = arguments.table.of(block.unit());
    const int number = block.unit() - segment.first_unit;
    const int first = number * arguments.size;
    const int end = first + least(arguments.size, segment.length - first);
    float* const means = arguments.means + (static_cast<int64_t>(block.head()) * arguments.blocks +
                                            segment.first_block + number) *
                                               2 * arguments.head_size;
    block.each_thread([&](int thread, Registers&) {
      for (int i = thread; i < 2 * arguments.head_size; i += kThreads) {
        const Rows<T> rows = rows_of<T>(arguments.qkv, i / arguments.head_size, block.head(),
                                        segment.first_token, arguments.hidden, arguments.head_size);
        float sum = 0.0f;
        for (int row = first; row < end; ++row) {
          sum += to_float(rows.at[row * rows.stride + i % arguments.head_size]);
        }
        means[i] = sum / static_cast<float>(end - first);
      }
    });
  }
};

struct ChooseBlocksArguments {
  Table<Segment> table;  // a unit is 16 blocks of queries
  const float* means;
  uint32_t* chosen;  // as in Visible
  int32_t blocks;    // of all sequences
  int32_t words;
  int32_t size;
  int32_t head_size;
  int32_t rows;  // blocks of queries at a time: 16, or fewer where their scores would not fit
  int32_t most_blocks;  // of the sequences of the launch
};

struct ChooseBlocks {
  static constexpr int kThreads = kRowThreads;
  using Arguments = ChooseBlocksArguments;
  struct Registers {
    uint32_t candidate;
    float threshold;
  };
  struct Shared {
    OfRow<float> sums;  // NaN where a score of the row is
    ThresholdShared threshold;
  };

  static size_t shared_bytes(int rows, int most_blocks) {
    return sizeof(Shared) + sizeof(float) * static_cast<size_t>(rows) * most_blocks;
  }

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    float* const scores = reinterpret_cast<float*>(block.shared() + sizeof(Shared));
    const Segment& segment = arguments.table.of(block.unit());
    const int count = (segment.length - 1) / arguments.size + 1;
    const int first = (block.unit() - segment.first_unit) * arguments.rows;
    const int rows = least(arguments.rows, count - first);
    const int stride = arguments.most_blocks;
    const int64_t base =
        static_cast<int64_t>(block.head()) * arguments.blocks + segment.first_block;

    block.each_thread([&](int thread, Registers& own) {
      own.threshold = -INFINITY;
      const int row = row_of_thread(thread);
      if (row >= rows) return;
      const float* const query = arguments.means + (base + first + row) * 2 * arguments.head_size;
      float sum = 0.0f;  // of zeros, or NaN
      for_own(thread, count, [&](int key) {
        const float* const mean = arguments.means + ((base + key) * 2 + 1) * arguments.head_size;
        float score = 0.0f;
        for (int d = 0; d < arguments.head_size; ++d) score += query[d] * mean[d];
        scores[row * stride + key] = score;
        if (score != score) sum = NAN;
      });
      shared.sums.of(thread) = sum;
    });
    if (segment.kept < count) {
      find_threshold<Registers>(block, shared.threshold, scores, stride, rows, count, segment.kept);
    }
    block.each_thread([&](int thread, Registers& own) {
      const int row = row_of_thread(thread);
      if (row >= rows) return;
      const bool all = segment.kept >= count || shared.sums.sum(row) != 0.0f;
      uint32_t* const words = arguments.chosen + (base + first + row) * arguments.words;
      for_own(thread, arguments.words, [&](int word) {
        uint32_t bits = 0;
        for (int key = word * 32; key < least(count, (word + 1) * 32); ++key) {
          const bool chosen =
              all || scores[row * stride + key] >= own.threshold || key == first + row || key == 0;
          bits |= static_cast<uint32_t>(chosen) << (key % 32);
        }
        words[word] = bits;
      });
    });
  }
};

}  // namespace cuda
}  // namespace crisp
