// Attention over whole rows of scores in shared memory, 16 queries of one head at a time: for what
// the online softmax of attend_tiles.h cannot do. Top-k needs all scores of a row before it keeps
// any; what a token received needs each row's final sum; and where the first token alone queries,
// the four warps share its keys.
//
// A block takes some groups of 16 queries of a sequence, all of them where it is short, one after
// the other, and adds up on its own what each token received from them: [heads, blocks of the
// sequence, its length] in `partial`, which sum_received.h adds up in a fixed order. No atomics, so
// that a run can be repeated to the last bit.
#pragma once

#include <math.h>

#include "attend_tiles.h"
#include "threshold.h"

namespace crisp {
namespace cuda {

struct AttendRowsArguments {
  Table<Segment> table;
  Visible visible;
  const void* qkv;
  void* context;
  float* partial;    // null where nobody asks what tokens received
  int64_t partials;  // floats of one head in it
  int32_t hidden;
  int32_t head_size;
  int32_t rows;           // queries at a time: 16, or fewer where their scores would not fit
  int32_t rows_of_block;  // queries that a block takes in all
  int32_t longest;        // of the sequences of the launch
  bool first_only;        // the first token of each sequence queries, no other
  float scale;
};

template <class T, int kWidth>
struct AttendRows {
  static constexpr int kThreads = kRowThreads;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kTileWarps = kKeys / 8 / kWarps;    // score tiles of a warp
  static constexpr int kWidthTiles = kWidth / 8 / kWarps;  // context tiles of a warp
  static constexpr int kRowStride = padded<T>(kWidth);
  static constexpr int kKeyStride = padded<T>(kKeys);
  static_assert(kWidth % (8 * kWarps) == 0, "each warp has whole tiles of the context");

  using Arguments = AttendRowsArguments;

  struct Registers {
    float context[kWidthTiles][4];
    uint32_t candidate;
    float threshold;
  };

  struct Shared {
    alignas(16) T query[kRows * kRowStride];
    alignas(16) T key_or_value[kKeys * kRowStride > kWidth* kKeyStride ? kKeys* kRowStride
                                                                       : kWidth* kKeyStride];
    OfRow<float> most;
    OfRow<float> sums;
    ThresholdShared threshold;
    int not_finite[2];
  };

  // The rows of scores and what tokens received follow `Shared`.
  CRISP_HD static int score_stride(int longest) { return round_up_to(longest, kKeys) + 4; }
  static size_t shared_bytes(int rows, int longest, bool with_received) {
    const int floats = rows * score_stride(longest) + (with_received ? longest : 0);
    return sizeof(Shared) + sizeof(float) * static_cast<size_t>(floats);
  }

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    const Segment& segment = arguments.table.of(block.unit());
    const int number = block.unit() - segment.first_unit;
    const int queries = arguments.first_only ? 1 : segment.length;
    const int begin = number * arguments.rows_of_block;
    const int end = least(begin + arguments.rows_of_block, queries);
    Work<Block> work{
        arguments,
        segment,
        block,
        *reinterpret_cast<Shared*>(block.shared()),
        reinterpret_cast<float*>(block.shared() + sizeof(Shared)),
        score_stride(arguments.longest),
        VisibleHere(arguments.visible, block.head(), segment.first_block, segment.length)};
    float* const received = work.scores + arguments.rows * work.stride;
    if (arguments.partial != nullptr) {
      block.each_thread([&](int thread, Registers&) {
        for (int key = thread; key < segment.length; key += kThreads) received[key] = 0.0f;
      });
    }
    for (int first = begin; first < end; first += arguments.rows) {
      work.first = first;
      work.rows = least(arguments.rows, end - first);
      work.score();
      work.normalise();
      if (arguments.partial != nullptr) work.add_received(received);
      work.attend();
    }
    if (arguments.partial != nullptr) {
      float* const partial = arguments.partial + block.head() * arguments.partials +
                             segment.first_partial + static_cast<int64_t>(number) * segment.length;
      block.each_thread([&](int thread, Registers&) {
        for (int key = thread; key < segment.length; key += kThreads) partial[key] = received[key];
      });
    }
  }

 private:
  template <class Block>
  struct Work {
    const Arguments& arguments;
    const Segment& segment;
    Block& block;
    Shared& shared;
    float* scores;  // [rows, stride], then probabilities before division by their sum
    int stride;
    VisibleHere visible;
    int first = 0;  // of the queries at hand
    int rows = 0;

    CRISP_HD Rows<T> part(int index) const {
      return rows_of<T>(arguments.qkv, index, block.head(), segment.first_token, arguments.hidden,
                        arguments.head_size);
    }

    CRISP_HD bool sees(int key) const {
      return visible.any(first, first + rows, key, least(key + kKeys, segment.length));
    }

    CRISP_HD void score() {
      block.each_thread([&](int thread, Registers&) {
        load_rows<kThreads, kWidth>(thread, part(0), first, kRows, first + rows, shared.query);
      });
      for (int key = 0; key < segment.length; key += kKeys) {
        const bool seen = sees(key);
        if (seen) {
          block.each_thread([&](int thread, Registers&) {
            load_rows<kThreads, kWidth>(thread, part(1), key, kKeys, segment.length,
                                        shared.key_or_value);
          });
        }
        block.each_thread([&](int thread, Registers&) { score_tile(thread, key, seen); });
      }
    }

    CRISP_HD void score_tile(int thread, int key, bool seen) {
      const int lane = thread % kWarp;
      const int column = thread / kWarp * kTileWarps * 8;
      float sums[kTileWarps][4] = {};
      if (seen) {
        multiply_add<kTileWarps, kWidth>(lane, shared.query, kRowStride, kRows - 1,
                                         shared.key_or_value + column * kRowStride, kRowStride,
                                         sums);
      }
      CRISP_UNROLL
      for (int tile = 0; tile < kTileWarps; ++tile) {
        CRISP_UNROLL
        for (int element = 0; element < 4; ++element) {
          const int row = lane_row(lane, element);
          const int at = key + column + tile * 8 + lane_column(lane, element);
          if (row >= rows) continue;
          const bool is_visible = seen && visible.pair(first + row, at);
          scores[row * stride + at] =
              is_visible ? sums[tile][element] * arguments.scale : -INFINITY;
        }
      }
    }

    // Scores to probabilities, but for their sums: zero where a key is dropped, NaN, for visible
    // keys, where a row has no softmax.
    CRISP_HD void normalise() {
      const int length = segment.length;
      block.each_thread([&](int thread, Registers& own) {
        const int row = row_of_thread(thread);
        float most = -INFINITY;
        if (row < rows) {
          for_own(thread, length,
                  [&](int key) { most = highest(most, scores[row * stride + key]); });
        }
        shared.most.of(thread) = most;
        own.threshold = -INFINITY;
      });
      if (arguments.visible.kind == PatternKind::kTopK && segment.kept < length) {
        find_threshold<Registers>(block, shared.threshold, scores, stride, rows, length,
                                  segment.kept);
      }
      block.each_thread([&](int thread, Registers& own) {
        const int row = row_of_thread(thread);
        if (row >= rows) return;
        const float most = shared.most.most(row);
        float sum = 0.0f;
        for_own(thread, round_up_to(length, kKeys), [&](int key) {
          float& score = scores[row * stride + key];
          float probability = 0.0f;
          if (!is_finite(most)) {
            probability = visible.pair(first + row, key) ? NAN : 0.0f;
          } else if (key < length && score >= own.threshold) {
            probability = expf(score - most);
          }
          score = probability;
          sum += probability;
        });
        shared.sums.of(thread) = sum;
      });
    }

    CRISP_HD void add_received(float* received) {
      block.each_thread([&](int thread, Registers&) {
        for (int row = 0; row < rows; ++row) {
          const float sum = shared.sums.sum(row);
          for (int key = thread; key < segment.length; key += kThreads) {
            const float probability = scores[row * stride + key];
            if (probability != 0.0f) received[key] += probability / sum;
          }
        }
      });
    }

    CRISP_HD void attend() {
      block.each_thread([&](int thread, Registers& own) {
        CRISP_UNROLL
        for (int tile = 0; tile < kWidthTiles; ++tile) {
          CRISP_UNROLL
          for (int element = 0; element < 4; ++element) own.context[tile][element] = 0.0f;
        }
        if (thread < 2) shared.not_finite[thread] = 0;
      });
      int tile = 0;
      for (int key = 0; key < segment.length; key += kKeys) {
        if (!sees(key)) continue;
        const int parity = tile++ % 2;
        block.each_thread([&](int thread, Registers&) {
          if (!load_columns<kThreads, kWidth, kKeys>(thread, part(2), key, segment.length,
                                                     shared.key_or_value)) {
            shared.not_finite[parity] = 1;
          }
        });
        block.each_thread([&](int thread, Registers& own) {
          const T* const values =
              shared.key_or_value + thread / kWarp * kWidthTiles * 8 * kKeyStride;
          if (shared.not_finite[parity]) {
            multiply_add_nonzero<kWidthTiles, kKeys>(thread % kWarp, scores + key, stride, rows - 1,
                                                     values, kKeyStride, own.context);
          } else {
            multiply_add<kWidthTiles, kKeys>(thread % kWarp, scores + key, stride, rows - 1, values,
                                             kKeyStride, own.context);
          }
          if (thread == 0) shared.not_finite[1 - parity] = 0;
        });
      }
      block.each_thread([&](int thread, Registers& own) { store(thread, own); });
    }

    CRISP_HD void store(int thread, const Registers& own) {
      CRISP_UNROLL
      for (int element = 0; element < 4; ++element) {
        const int row = lane_row(thread % kWarp, element);
        if (row >= rows) continue;
        const float sum = shared.sums.sum(row);
        T* const context =
            static_cast<T*>(arguments.context) +
            static_cast<int64_t>(segment.first_row + first + row) * arguments.hidden +
            block.head() * arguments.head_size;
        CRISP_UNROLL
        for (int tile = 0; tile < kWidthTiles; ++tile) {
          const int column =
              (thread / kWarp * kWidthTiles + tile) * 8 + lane_column(thread % kWarp, element);
          // A row without softmax has a sum of NaN.
          if (column < arguments.head_size) {
            context[column] = from_float<T>(own.context[tile][element] / sum);
          }
        }
      }
    }
  };
};

}  // namespace cuda
}  // namespace crisp
