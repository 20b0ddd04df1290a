// The kernel of each instruction set against the scalar reference, on finite input.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "problem.h"

namespace crisp {
namespace {

#ifdef CRISP_SANITIZE
constexpr bool kSlow = true;  // some ten times slower: leave the largest out
#else
constexpr bool kSlow = false;
#endif

std::vector<Pattern> patterns_for(int64_t length) {
  return {dense(),
          topk_by_density(1, 5),
          topk_by_density(1, length),
          topk_by_density(1, 1),
          topk_by_number(7),
          band(1, 0),
          band(9, 1),
          band(65, 3),
          block(1, 0),
          block(7, 2),
          block(64, 1),
          blocktopk_by_density(1, 1, 5),
          blocktopk_by_number(4, 2),
          blocktopk_by_density(8, 1, 4),
          blocktopk_by_density(32, 1, 8),
          blocktopk_by_number(64, 2)};
}

void check_all_isas(const Problem& problem) {
  CAPTURE(text_of(problem));
  const Solution expected = solve_by_reference(problem);
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    check_same(problem, solve(problem, isa), expected);
  }
  if (problem.queries == Queries::kAll) check_all_isas(first_only(problem));
}

TEST_CASE("every length from 1 to 70") {
  for (int64_t length = 1; length <= 70; ++length) {
    for (const Pattern& pattern : patterns_for(length)) {
      for (const int64_t head_size : {32, 64}) {
        check_all_isas(random_problem({length}, 2, head_size, pattern));
        check_all_isas(integer_problem({length}, 2, head_size, pattern));
      }
    }
  }
}

TEST_CASE("lengths around powers of two, and long ones") {
  for (const int64_t length : {127, 128, 129, 512, 513, 2048}) {
    if (kSlow && length == 2048) continue;
    for (const Pattern& pattern : patterns_for(length)) {
      check_all_isas(random_problem({length}, 1, 32, pattern));
      if (length < 2048) check_all_isas(integer_problem({length}, 1, 64, pattern));
    }
  }
}

TEST_CASE("2048 tokens with heads of 64") {
  for (const Pattern& pattern : {topk_by_density(1, 5), band(65, 3)}) {
    check_all_isas(integer_problem({2048}, 1, 64, pattern));
  }
}

TEST_CASE("batches of mixed lengths, empty sequences among them") {
  for (const Pattern& pattern : patterns_for(30)) {
    check_all_isas(random_problem({5, 1, 33, 0, 64, 130, 2}, 3, 32, pattern));
    check_all_isas(integer_problem({0, 17, 0, 0, 200, 1, 0}, 3, 64, pattern));
  }
}

TEST_CASE("head sizes that are no multiple of a vector") {
  for (const int64_t head_size : {1, 3, 8, 20, 33, 48, 80, 128}) {
    for (const Pattern& pattern : patterns_for(41)) {
      check_all_isas(random_problem({41, 6}, 2, head_size, pattern));
    }
  }
}

// Means over 3, 5 or 7 integers are not exact, and integers tie too often for that.
TEST_CASE("blocks of any size") {
  for (const int64_t size : {1, 2, 3, 5, 7, 17, 31, 33, 64, 96, 100, 1000}) {
    for (const int64_t length : {1, 8, 64, 97, 300}) {
      check_all_isas(random_problem({length}, 2, 32, blocktopk_by_density(size, 1, 8)));
      check_all_isas(random_problem({length, 3}, 1, 20, blocktopk_by_number(size, 1)));
    }
  }
}

TEST_CASE("an empty batch is left alone") {
  for (const Isa isa : supported_isas()) {
    const Solution solution = solve(random_problem({}, 2, 32, topk_by_density(1, 5)), isa);
    CHECK(solution.context.empty());
    CHECK(solution.received.empty());
  }
}

TEST_CASE("density 1 equals dense, bit for bit") {
  for (const Isa isa : supported_isas()) {
    const Problem everything = random_problem({70, 9}, 2, 32, dense());
    Problem sparse = everything;
    sparse.pattern = topk_by_density(1, 1);
    CHECK(solve(everything, isa).context == solve(sparse, isa).context);
  }
}

TEST_CASE("density 1/L attends to the best key alone") {
  for (const Isa isa : supported_isas()) {
    Problem problem = random_problem({50}, 1, 32, topk_by_density(1, 50));
    for (int64_t token = 0; token < 50; ++token) {
      for (int64_t d = 0; d < 32; ++d) {
        problem.q(token, 0, d) = d == 0 ? 1.0f : 0.0f;
        problem.k(token, 0, d) = d == 0 ? static_cast<float>(token == 31) : 0.0f;
      }
    }
    const Solution solution = solve(problem, isa);
    for (int64_t token = 0; token < 50; ++token) {
      for (int64_t d = 0; d < 32; ++d) {
        CHECK(solution.context[static_cast<size_t>(token * 32 + d)] == problem.v(31, 0, d));
      }
    }
    CHECK(solution.received[31] == doctest::Approx(50));
  }
}

TEST_CASE("all keys tie: all are kept") {
  for (const Isa isa : supported_isas()) {
    Problem problem = random_problem({64}, 1, 32, topk_by_number(3));
    for (int64_t token = 0; token < 64; ++token) {
      for (int64_t d = 0; d < 32; ++d) problem.k(token, 0, d) = 0.5f;
    }
    const Solution solution = solve(problem, isa);
    for (const float mass : solution.received) CHECK(mass == doctest::Approx(1).epsilon(1e-5));
  }
}

TEST_CASE("zeros of either sign tie") {
  for (const Isa isa : supported_isas()) {
    Problem problem = random_problem({40}, 1, 32, topk_by_number(1));
    for (int64_t token = 0; token < 40; ++token) {
      for (int64_t d = 0; d < 32; ++d) {
        problem.q(token, 0, d) = d == 0 ? 1.0f : 0.0f;
        problem.k(token, 0, d) = token % 2 == 0 ? -0.0f : 0.0f;
      }
    }
    const Solution solution = solve(problem, isa);
    for (const float mass : solution.received) CHECK(mass == doctest::Approx(1).epsilon(1e-5));
  }
}

TEST_CASE("scores of very different sizes") {
  for (const float size : {0x1p-100f, 0x1p-33f, 0x1p10f, 0x1p50f}) {
    for (const Pattern& pattern : {dense(), topk_by_density(1, 5), band(9, 1)}) {
      Problem problem = integer_problem({77}, 2, 32, pattern);
      for (int64_t token = 0; token < 77; ++token) {
        for (int64_t d = 0; d < 64; ++d) problem.q(token, 0, d) *= size;
      }
      CAPTURE(size);
      // Subtracting the highest of scores of 1000 leaves fewer digits to exp.
      const Solution expected = solve_by_reference(problem);
      for (const Isa isa : supported_isas())
        check_same(problem, solve(problem, isa), expected, 1e-3);
    }
  }
}

TEST_CASE("outliers far from the rest do not mislead the top-k search") {
  for (const Isa isa : supported_isas()) {
    Problem problem = integer_problem({300}, 1, 32, topk_by_number(40));
    for (int64_t d = 0; d < 32; ++d) {
      problem.k(7, 0, d) *= 1e12f;
      problem.k(200, 0, d) *= -1e18f;
    }
    check_same(problem, solve(problem, isa), solve_by_reference(problem));
  }
}

TEST_CASE("received sums to the length of each sequence, and is optional") {
  for (const Isa isa : supported_isas()) {
    const Problem problem = random_problem({60, 1, 130}, 3, 32, topk_by_density(1, 5));
    const Solution with = solve(problem, isa, true);
    const Solution without = solve(problem, isa, false);
    CHECK(with.context == without.context);
    for (size_t sequence = 0; sequence < 3; ++sequence) {
      double sum = 0;
      for (int32_t t = problem.cu_seqlens[sequence]; t < problem.cu_seqlens[sequence + 1]; ++t) {
        sum += with.received[static_cast<size_t>(t)];
      }
      CHECK(sum ==
            doctest::Approx(problem.cu_seqlens[sequence + 1] - problem.cu_seqlens[sequence]));
    }
  }
}

}  // namespace
}  // namespace crisp
