// Attention of 64 queries of one head at a time, over tiles of 64 keys with an online softmax: the
// running maximum and sum of a row are corrected as keys come in, so that no row of scores is ever
// whole. A short sequence is one tile of each: one block, everything in shared memory.
// Sources: Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867;
// Dao, "FlashAttention-2", arXiv 2307.08691.
//
// For every pattern whose keys are known before their scores are: dense, band, block and blocktopk.
// topk, and what tokens received, need whole rows: attend_rows.h. Each of the four warps has 16 of
// the queries: their scores, sums and context are in its registers.
#pragma once

#include <math.h>

#include "load_tile.h"
#include "multiply.h"
#include "segments.h"
#include "visible.h"

namespace crisp {
namespace cuda {

constexpr int kQueries = 64;  // of a block
constexpr int kKeys = 64;     // of a tile

struct AttendTilesArguments {
  Table<Segment> table;
  Visible visible;
  const void* qkv;
  void* context;
  int32_t hidden;
  int32_t head_size;
  float scale;
};

template <class T>
CRISP_HD Rows<T> rows_of(const void* qkv, int part, int head, int first_token, int hidden,
                         int head_size) {
  const int64_t stride = 3 * static_cast<int64_t>(hidden);
  return {static_cast<const T*>(qkv) + first_token * stride + part * hidden + head * head_size,
          stride, head_size, head_size % kVector<T> == 0 && hidden % kVector<T> == 0};
}

// kWidth: head_size, rounded up to 32, 64 or 128.
template <class T, int kWidth>
struct AttendTiles {
  static constexpr int kThreads = 128;
  static constexpr int kKeyTiles = kKeys / 8;
  static constexpr int kWidthTiles = kWidth / 8;
  static constexpr int kRowStride = padded<T>(kWidth);
  static constexpr int kKeyStride = padded<T>(kKeys);

  using Arguments = AttendTilesArguments;

  struct Registers {
    float score[kKeyTiles][4];
    float context[kWidthTiles][4];
    float most[2];  // of its two rows, so far
    float sum[2];   // of the probabilities that this lane has seen
  };

  struct Shared {
    alignas(16) T query[kQueries * kRowStride];
    alignas(16) T key[kKeys * kRowStride];
    alignas(16) T value[kWidth * kKeyStride];          // transposed
    alignas(16) T probability[kQueries * kKeyStride];  // before division by their sum
    float of_lane[kQueries][4];  // the highest score, then the sum, of each lane of a row
    int not_finite[2];           // whether a tile of values, even or odd, has NaN or infinity
  };
  static constexpr size_t kSharedBytes = sizeof(Shared);

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    const Segment& segment = arguments.table.of(block.unit());
    const int first = (block.unit() - segment.first_unit) * kQueries;
    const int end = least(first + kQueries, segment.length);
    const VisibleHere visible(arguments.visible, block.head(), segment.first_block, segment.length);
    const auto part = [&](int index) {
      return rows_of<T>(arguments.qkv, index, block.head(), segment.first_token, arguments.hidden,
                        arguments.head_size);
    };

    block.each_thread([&](int thread, Registers& own) {
      load_rows<kThreads, kWidth>(thread, part(0), first, kQueries, end, shared.query);
      if (thread < 2) shared.not_finite[thread] = 0;
      own.most[0] = own.most[1] = -INFINITY;
      own.sum[0] = own.sum[1] = 0.0f;
      clear(own.context);
    });
    int tile = 0;
    for (int key = 0; key < segment.length; key += kKeys) {
      if (!visible.any(first, end, key, least(key + kKeys, segment.length))) continue;
      const int parity = tile++ % 2;
      block.each_thread([&](int thread, Registers&) {
        load_rows<kThreads, kWidth>(thread, part(1), key, kKeys, segment.length, shared.key);
        if (!load_columns<kThreads, kWidth, kKeys>(thread, part(2), key, segment.length,
                                                   shared.value)) {
          shared.not_finite[parity] = 1;
        }
      });
      block.each_thread([&](int thread, Registers& own) {
        if (has_rows(thread, first, end)) {
          score(arguments, visible, thread, first, key, shared, own);
        }
      });
      block.each_thread([&](int thread, Registers& own) {
        if (has_rows(thread, first, end)) accumulate(thread, shared, own);
        if (thread == 0) shared.not_finite[1 - parity] = 0;
      });
      block.each_thread([&](int thread, Registers& own) {
        if (!has_rows(thread, first, end)) return;
        const T* const probability = shared.probability + thread / kWarp * 16 * kKeyStride;
        if (shared.not_finite[parity]) {
          multiply_add_nonzero<kWidthTiles, kKeys>(thread % kWarp, probability, kKeyStride, 15,
                                                   shared.value, kKeyStride, own.context);
        } else {
          multiply_add<kWidthTiles, kKeys>(thread % kWarp, probability, kKeyStride, 15,
                                           shared.value, kKeyStride, own.context);
        }
      });
    }
    block.each_thread([&](int thread, Registers& own) {
      for (int half = 0; half < 2; ++half) {
        shared.of_lane[row_of(thread, 2 * half)][thread % 4] = own.sum[half];
      }
    });
    block.each_thread([&](int thread, Registers& own) {
      store(arguments, segment, block.head(), thread, first, end, shared, own);
    });
  }

 private:
  template <int kTiles>
  CRISP_HD static void clear(float (&sums)[kTiles][4]) {
    CRISP_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      CRISP_UNROLL
      for (int element = 0; element < 4; ++element) sums[tile][element] = 0.0f;
    }
  }

  CRISP_HD static bool has_rows(int thread, int first, int end) {
    return first + thread / kWarp * 16 < end;
  }

  // Of the block's queries, that of a lane's element.
  CRISP_HD static int row_of(int thread, int element) {
    return thread / kWarp * 16 + lane_row(thread % kWarp, element);
  }

  // Scores of the tile, those of invisible keys -inf, and the highest of this lane.
  CRISP_HD static void score(const Arguments& arguments, const VisibleHere& visible, int thread,
                             int first, int key, Shared& shared, Registers& own) {
    const int lane = thread % kWarp;
    clear(own.score);
    multiply_add<kKeyTiles, kWidth>(lane, shared.query + thread / kWarp * 16 * kRowStride,
                                    kRowStride, 15, shared.key, kRowStride, own.score);
    float most[2] = {-INFINITY, -INFINITY};
    CRISP_UNROLL
    for (int tile = 0; tile < kKeyTiles; ++tile) {
      CRISP_UNROLL
      for (int element = 0; element < 4; ++element) {
        float& score = own.score[tile][element];
        const bool is_visible = visible.pair(first + row_of(thread, element),
                                             key + tile * 8 + lane_column(lane, element));
        score = is_visible ? score * arguments.scale : -INFINITY;
        most[element / 2] = highest(most[element / 2], score);
      }
    }
    shared.of_lane[row_of(thread, 0)][lane % 4] = most[0];
    shared.of_lane[row_of(thread, 2)][lane % 4] = most[1];
  }

  // Probabilities against the maximum so far; what was added up before is scaled to it. A row whose
  // maximum is NaN or +inf spoils nothing but itself, and store() makes it NaN.
  CRISP_HD static void accumulate(int thread, Shared& shared, Registers& own) {
    CRISP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = row_of(thread, 2 * half);
      float most = own.most[half];
      CRISP_UNROLL
      for (int lane = 0; lane < 4; ++lane) most = highest(most, shared.of_lane[row][lane]);
      const bool none = most == -INFINITY;
      const float scale = none ? 1.0f : expf(own.most[half] - most);
      own.most[half] = most;
      own.sum[half] *= scale;
      CRISP_UNROLL
      for (int tile = 0; tile < kWidthTiles; ++tile) {
        own.context[tile][2 * half] *= scale;
        own.context[tile][2 * half + 1] *= scale;
      }
      CRISP_UNROLL
      for (int tile = 0; tile < kKeyTiles; ++tile) {
        CRISP_UNROLL
        for (int element = 2 * half; element < 2 * half + 2; ++element) {
          const float value = none ? 0.0f : expf(own.score[tile][element] - most);
          own.sum[half] += value;
          const int column = tile * 8 + lane_column(thread % kWarp, element);
          shared.probability[row * kKeyStride + column] = from_float<T>(value);
        }
      }
    }
  }

  CRISP_HD static void store(const Arguments& arguments, const Segment& segment, int head,
                             int thread, int first, int end, const Shared& shared,
                             const Registers& own) {
    CRISP_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = row_of(thread, 2 * half);
      if (first + row >= end) continue;
      float sum = 0.0f;
      for (int lane = 0; lane < 4; ++lane) sum += shared.of_lane[row][lane];
      const bool defined = is_finite(own.most[half]);
      T* const context = static_cast<T*>(arguments.context) +
                         static_cast<int64_t>(segment.first_row + first + row) * arguments.hidden +
                         head * arguments.head_size;
      CRISP_UNROLL
      for (int tile = 0; tile < kWidthTiles; ++tile) {
        CRISP_UNROLL
        for (int element = 2 * half; element < 2 * half + 2; ++element) {
          const int column = tile * 8 + lane_column(thread % kWarp, element);
          if (column < arguments.head_size) {
            context[column] = from_float<T>(defined ? own.context[tile][element] / sum : NAN);
          }
        }
      }
    }
  }
};

}  // namespace cuda
}  // namespace crisp
