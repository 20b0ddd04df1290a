// Threads that go through the same steps together, each doing what nobody has taken yet.
//
//   Team team(threads);
//   parallel_for(threads, [&](size_t) {
//     Team::Member member(team);
//     member.step(rows, size, [&](int64_t begin, int64_t end) { ... });    // all of it is done
//     member.step(columns, size, [&](int64_t begin, int64_t end) { ... }); // before this begins
//   });
//
// A thread waits for parts alone that another one is at: one that comes late, or not at all before
// the others have done everything, is waited for by nobody.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <thread>

namespace crisp {

class Team {
 public:
  static constexpr int kMostSteps = 8;  // PostAttentionQkv has as many

  explicit Team(int64_t threads) : threads_(threads) {}

  class Member {
   public:
    explicit Member(Team& team) : team_(team) {}

    int64_t threads() const { return team_.threads_; }

    // part(begin, end) for pieces of [0, total), each of `size` but for the last; returns when all
    // are done, by whomever. Every member calls the same steps, kMostSteps at most, in the same
    // order.
    template <typename Part>
    void step(int64_t total, int64_t size, const Part& part) {
      assert(next_ < kMostSteps && size > 0);
      Step& own = team_.steps_[static_cast<size_t>(next_++)];
      const int64_t pieces = (total + size - 1) / size;
      for (int64_t piece = own.taken++; piece < pieces; piece = own.taken++) {
        part(piece * size, std::min(total, (piece + 1) * size));
        own.done.fetch_add(1, std::memory_order_release);
      }
      for (int turn = 0; own.done.load(std::memory_order_acquire) < pieces; ++turn) wait(turn);
    }

   private:
    // Steps take microseconds; but a thread may have lost its processor, even to this one.
    static void wait(int turn) {
      constexpr int kSpins = 500;
      if (turn >= kSpins) return std::this_thread::yield();
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }

    Team& team_;
    int next_ = 0;
  };

  // The same interface for a thread by itself.
  struct Alone {
    int64_t threads() const { return 1; }
    template <typename Part>
    void step(int64_t total, int64_t, const Part& part) {
      part(0, total);
    }
  };

 private:
  struct alignas(64) Step {
    std::atomic<int64_t> taken{0};
    std::atomic<int64_t> done{0};
  };

  int64_t threads_;
  std::array<Step, kMostSteps> steps_;
};

}  // namespace crisp
