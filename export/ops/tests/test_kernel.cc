// The kernel of each instruction set against the scalar reference, on finite input.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "problem.h"

namespace crisp {
namespace {

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

TEST_CASE("16,384 tokens in one pack") {
  // Too long for the reference: what each sequence gives by itself must come out of the pack.
  const std::vector<int64_t> lengths = {4096, 12000, 287, 1};
  for (const Pattern& pattern : {dense(), blocktopk_by_density(64, 1, 8)}) {
    if (kSlow && pattern.kind == PatternKind::kDense) continue;
    for (const Isa isa : supported_isas()) {
      const Problem pack = random_problem(lengths, 1, 16, pattern);
      const Solution together = solve(pack, isa);
      CHECK(pack.tokens() == 16384);
      double sum = 0;
      for (const float mass : together.received) sum += mass;
      CHECK(sum == doctest::Approx(16384));
      Problem last = pack;
      last.qkv.assign(pack.qkv.end() - 288 * 48, pack.qkv.end());
      last.cu_seqlens = {0, 287, 288};
      const Solution expected = solve_by_reference(last);
      Solution end;
      end.context.assign(together.context.end() - 288 * 16, together.context.end());
      end.received.assign(together.received.end() - 288, together.received.end());
      check_same(last, end, expected);
    }
  }
  for (const Isa isa : supported_isas()) {
    const Problem one = first_only(random_problem({16384}, 1, 32, blocktopk_by_number(64, 4)));
    check_same(one, solve(one, isa), solve_by_reference(one));
  }
}

TEST_CASE("1,024 sequences") {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 1024; ++i) lengths.push_back(i % 23);
  for (const Pattern& pattern : {dense(), topk_by_number(3), blocktopk_by_number(4, 1)}) {
    check_all_isas(random_problem(lengths, 2, 32, pattern));
  }
}

TEST_CASE("the first queries alone give the first rows of all queries") {
  for (const Pattern& pattern : patterns_for(90)) {
    for (const Isa isa : supported_isas()) {
      const Problem every = random_problem({90, 1, 0, 33}, 2, 32, pattern);
      const Solution rows = solve(every, isa);
      const Solution first = solve(first_only(every), isa);
      CHECK(first.context.size() == 4 * 64);
      for (size_t d = 0; d < 64; ++d) {
        CHECK(first.context[d] == rows.context[d]);
        CHECK(first.context[64 + d] == rows.context[90 * 64 + d]);
        CHECK(first.context[2 * 64 + d] == 0.0f);
        CHECK(first.context[3 * 64 + d] == rows.context[91 * 64 + d]);
      }
    }
  }
}

TEST_CASE("every block kept equals dense, bit for bit") {
  for (const Isa isa : supported_isas()) {
    for (const Pattern& pattern :
         {blocktopk_by_density(8, 1, 1), blocktopk_by_number(8, 99), blocktopk_by_number(200, 1),
          blocktopk_by_number(INT64_MAX, INT64_MAX)}) {
      const Problem everything = random_problem({150, 9, 1}, 2, 32, dense());
      Problem chosen = everything;
      chosen.pattern = pattern;
      CHECK(solve(everything, isa).context == solve(chosen, isa).context);
      CHECK(solve(everything, isa).received == solve(chosen, isa).received);
    }
  }
}

TEST_CASE("blocks: the best one, the own one and the first are seen, ties too") {
  for (const Isa isa : supported_isas()) {
    for (const int64_t size : {1, 8, 32}) {
      Problem problem = random_problem({7 * size}, 1, 32, blocktopk_by_number(size, 1));
      for (int64_t token = 0; token < 7 * size; ++token) {
        const int64_t block = token / size;
        for (int64_t d = 0; d < 32; ++d) {
          problem.q(token, 0, d) = d == 0 ? 1.0f : 0.0f;
          // Blocks 3 and 5 score highest, and alike.
          problem.k(token, 0, d) = d == 0 ? static_cast<float>(block == 3 || block == 5) : 0.0f;
          problem.v(token, 0, d) = static_cast<float>(d == block);
        }
      }
      const Solution solution = solve(problem, isa);
      for (int64_t token = 0; token < 7 * size; ++token) {
        for (int64_t block = 0; block < 7; ++block) {
          const bool seen =
              token == 0 || block == 0 || block == 3 || block == 5 || block == token / size;
          CHECK((solution.context[static_cast<size_t>(token * 32 + block)] > 0) == seen);
        }
      }
    }
  }
}

TEST_CASE("an empty batch is left alone") {
  for (const Isa isa : supported_isas()) {
    for (const Pattern& pattern : {topk_by_density(1, 5), blocktopk_by_number(8, 1)}) {
      const Solution solution = solve(random_problem({}, 2, 32, pattern), isa);
      CHECK(solution.context.empty());
      CHECK(solution.received.empty());
    }
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
    double sum = 0;
    for (const float mass : solve(first_only(problem), isa).received) sum += mass;
    CHECK(sum == doctest::Approx(3));  // one query for each sequence
  }
}

}  // namespace
}  // namespace crisp
