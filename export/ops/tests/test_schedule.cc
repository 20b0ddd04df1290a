// cu_seqlens checks, and the work spread over threads.
#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "problem.h"

namespace crisp {
namespace {

void check(const std::vector<int32_t>& cu_seqlens, int64_t tokens) {
  check_cu_seqlens(cu_seqlens.data(), static_cast<int64_t>(cu_seqlens.size()), tokens);
}

TEST_CASE("offsets that must not be read through are refused") {
  CHECK_NOTHROW(check({0}, 0));
  CHECK_NOTHROW(check({0, 0, 5, 5, 9}, 9));
  CHECK_THROWS_WITH_AS(check({}, 0), doctest::Contains("empty"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({1, 5}, 5), doctest::Contains("start at 0"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({-1, 5}, 5), doctest::Contains("start at 0"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({0, 4, 3, 5}, 5), doctest::Contains("decrease"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({0, 9, 5}, 5), doctest::Contains("decrease"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({0, 6}, 5), doctest::Contains("end at"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({0, 4}, 5), doctest::Contains("end at"), std::invalid_argument);
  CHECK_THROWS_WITH_AS(check({0}, 5), doctest::Contains("end at"), std::invalid_argument);
}

Solution solve_on_threads(const Problem& problem, Isa isa, unsigned threads, size_t& most_tasks) {
  Solution solution;
  solution.context.resize(static_cast<size_t>(problem.tokens() * problem.hidden()));
  solution.received.resize(static_cast<size_t>(problem.tokens()));
  const Operands operands = {problem.qkv.data(),
                             problem.cu_seqlens.data(),
                             static_cast<int64_t>(problem.cu_seqlens.size()) - 1,
                             problem.num_heads,
                             problem.head_size,
                             problem.pattern,
                             problem.queries,
                             solution.context.data(),
                             solution.received.data()};
  sparse_attention(operands, isa, [&](size_t tasks, const std::function<void(size_t)>& task) {
    most_tasks = tasks;
    std::atomic<size_t> next{0};
    std::vector<std::thread> pool;
    for (unsigned i = 0; i < threads; ++i) {
      pool.emplace_back([&] {
        for (size_t at = next++; at < tasks; at = next++) task(at);
      });
    }
    for (std::thread& thread : pool) thread.join();
  });
  return solution;
}

TEST_CASE("the number of threads does not change a bit, and all shapes of work are shared") {
  const std::vector<int64_t> many_short(200, 13);
  for (const Pattern& pattern :
       {dense(), topk_by_density(1, 5), band(33, 2), blocktopk_by_number(32, 2)}) {
    for (const Problem& problem :
         {random_problem({700}, 8, 32, pattern), random_problem(many_short, 4, 32, pattern),
          random_problem({300, 1, 1, 90}, 6, 64, pattern)}) {
      for (const Isa isa : supported_isas()) {
        size_t tasks = 0;
        const Solution alone = solve_on_threads(problem, isa, 1, tasks);
        const Solution shared = solve_on_threads(problem, isa, 4, tasks);
        CHECK(tasks >= 4);
        CHECK(alone.context == shared.context);
        CHECK(alone.received == shared.received);
      }
    }
  }
}

TEST_CASE("a sequence's result does not depend on what it is batched with") {
  for (const Pattern& pattern :
       {dense(), topk_by_density(1, 5), band(9, 1), block(8, 1), blocktopk_by_number(16, 2)}) {
    const Problem batch = random_problem({31, 64, 7, 200}, 2, 32, pattern);
    for (const Isa isa : supported_isas()) {
      const Solution together = solve(batch, isa);
      for (size_t sequence = 0; sequence < 4; ++sequence) {
        const auto first = static_cast<size_t>(batch.cu_seqlens[sequence]);
        const auto last = static_cast<size_t>(batch.cu_seqlens[sequence + 1]);
        Problem single = batch;
        single.cu_seqlens = {0, static_cast<int32_t>(last - first)};
        single.qkv.assign(batch.qkv.begin() + static_cast<int64_t>(first * 192),
                          batch.qkv.begin() + static_cast<int64_t>(last * 192));
        const Solution alone = solve(single, isa);
        for (size_t i = 0; i < alone.context.size(); ++i) {
          REQUIRE(alone.context[i] == together.context[first * 64 + i]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace crisp
