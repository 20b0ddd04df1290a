// crisp::PruneTokens on the device; prune_tokens.h says the rule. How many tokens stay follows from
// the lengths, which the host knows, so that only *which* ones is computed here.
//
// One block a sequence. A token's rank is counted over all pairs: for 512 tokens less work than any
// selection in steps, for 4,096 some microseconds.
#pragma once

#include <math.h>

#include "segments.h"

namespace crisp {
namespace cuda {

struct PruneArguments {
  Table<PrunedSegment> table;
  const float* received;
  int64_t* kept;             // [T']
  int32_t* kept_cu_seqlens;  // [B + 1]; the first, 0, is not set here
};

struct Prune {
  static constexpr int kThreads = 512;
  using Arguments = PruneArguments;
  struct Registers {};
  struct Shared {
    int32_t staying[kThreads];  // of each thread's tokens
  };

  // The importance of each token follows `Shared`, then whether it stays.
  static size_t shared_bytes(int longest) {
    return sizeof(Shared) + static_cast<size_t>(longest) * (sizeof(float) + sizeof(uint8_t));
  }

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    float* const importance = reinterpret_cast<float*>(block.shared() + sizeof(Shared));
    const PrunedSegment& segment = arguments.table.of(block.unit());
    uint8_t* const stays = reinterpret_cast<uint8_t*>(importance + segment.live);
    // Neighbouring tokens to each thread, so that those before it are the threads before it.
    const int share = (segment.live + kThreads - 1) / kThreads;

    block.each_thread([&](int thread, Registers&) {
      for (int i = thread; i < segment.live; i += kThreads) {
        const float value = arguments.received[segment.first_token + i];
        importance[i] = value == value ? value : INFINITY;
      }
      if (thread == 0) {
        arguments.kept_cu_seqlens[segment.sequence + 1] = segment.first_kept + segment.kept;
      }
    });
    block.each_thread([&](int thread, Registers&) {
      const int begin = least(thread * share, segment.live);
      int32_t staying = 0;
      for (int i = begin; i < least(begin + share, segment.live); ++i) {
        int rank = 0;  // [CLS] comes before all others
        for (int other = 0; i > 0 && other < segment.live; ++other) {
          const bool before = other == 0 || importance[other] > importance[i] ||
                              (importance[other] == importance[i] && other < i);
          rank += before ? 1 : 0;
        }
        stays[i] = rank < segment.kept ? 1 : 0;
        staying += stays[i];
      }
      shared.staying[thread] = staying;
    });
    block.each_thread([&](int thread, Registers&) {
      const int begin = least(thread * share, segment.live);
      const int end = least(begin + share, segment.live);
      if (begin == end) return;
      int64_t at = segment.first_kept;
      for (int before = 0; before < thread; ++before) at += shared.staying[before];
      for (int i = begin; i < end; ++i) {
        if (stays[i]) arguments.kept[at++] = segment.first_token + i;
      }
    });
  }
};

}  // namespace cuda
}  // namespace crisp
