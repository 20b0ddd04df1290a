// Infinities and NaN: the rules of sparse_attention.h, for every pattern and instruction set, with
// products of floats and of bfloat16.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "problem.h"

namespace crisp {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Every kernel: where the processor has no bfloat16, both of an instruction set are the same.
struct Kernel {
  Isa isa;
  bool bf16;
};

std::vector<Kernel> kernels() {
  std::vector<Kernel> found;
  for (const Isa isa : supported_isas()) {
    for (const bool bf16 : {false, true}) found.push_back({isa, bf16});
  }
  return found;
}

Solution solve_by(const Kernel& kernel, Problem problem) {
  problem.bf16 = kernel.bf16;
  return solve(problem, kernel.isa);
}

// The values of integer_problem() are exact in bfloat16, the numerators of the softmax are not.
void check_against_reference(const Problem& problem) {
  CAPTURE(text_of(problem));
  const Solution expected = solve_by_reference(problem);
  for (const Kernel& kernel : kernels()) {
    CAPTURE(name_of(kernel.isa));
    CAPTURE(kernel.bf16);
    check_same(problem, solve_by(kernel, problem), expected, kernel.bf16 ? 1e-2 : 2e-5);
  }
}

bool any_nan(const Solution& solution, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (std::isnan(solution.context[static_cast<size_t>(i)])) return true;
  }
  return false;
}

TEST_CASE("one non-finite value, anywhere") {
  for (const Pattern& pattern : few_patterns()) {
    for (const float value : {kNaN, kInfinity, -kInfinity}) {
      for (const int64_t token : {0, 20, 52}) {
        for (const int64_t column : {3, 64 + 3, 128 + 3}) {  // of q, k and v
          Problem problem = integer_problem({53}, 2, 32, pattern);
          problem.qkv[static_cast<size_t>(token * 192 + column)] = value;
          CAPTURE(value);
          CAPTURE(token);
          CAPTURE(column);
          check_against_reference(problem);
        }
      }
    }
  }
}

TEST_CASE("nothing but non-finite values") {
  for (const Pattern& pattern : few_patterns()) {
    for (const float value : {kNaN, kInfinity, -kInfinity}) {
      Problem problem = integer_problem({1, 40}, 2, 32, pattern);
      for (float& entry : problem.qkv) entry = value;
      check_against_reference(problem);
    }
  }
}

TEST_CASE("another sequence never notices") {
  for (const Kernel& kernel : kernels()) {
    for (const Pattern& pattern : few_patterns()) {
      for (const float value : {kNaN, kInfinity, -kInfinity}) {
        const Problem clean = random_problem({19, 30, 21}, 2, 32, pattern);
        Problem dirty = clean;
        for (int64_t token = 19; token < 49; ++token) {
          for (int64_t d = 0; d < 64; ++d) {
            dirty.q(token, 0, d) = value;
            dirty.k(token, 0, d) = value;
            dirty.v(token, 0, d) = value;
          }
        }
        const Solution expected = solve_by(kernel, clean);
        const Solution solution = solve_by(kernel, dirty);
        for (size_t i = 0; i < 70 * 64; ++i) {
          if (i < 19 * 64 || i >= 49 * 64) REQUIRE(solution.context[i] == expected.context[i]);
        }
        for (size_t t = 0; t < 70; ++t) {
          if (t < 19 || t >= 49) REQUIRE(solution.received[t] == expected.received[t]);
        }
      }
    }
  }
}

TEST_CASE("a dropped key's value contributes nothing") {
  for (const Kernel& kernel : kernels()) {
    Problem problem = integer_problem({40}, 1, 32, topk_by_number(4));
    for (int64_t token = 0; token < 40; ++token) {
      for (int64_t d = 0; d < 32; ++d) {
        problem.q(token, 0, d) = 1.0f;
        problem.k(token, 0, d) = token < 4 ? 1.0f : -1.0f;
        if (token >= 4) problem.v(token, 0, d) = token % 2 == 0 ? kNaN : kInfinity;
      }
    }
    CHECK_FALSE(any_nan(solve_by(kernel, problem), 0, 40 * 32));
  }
}

TEST_CASE("a dropped key's value that bfloat16 cannot hold contributes nothing") {
  const float largest = std::numeric_limits<float>::max();
  const float last_held = 0x1.FEp+127f;
  for (const Kernel& kernel : kernels()) {
    CAPTURE(name_of(kernel.isa));
    CAPTURE(kernel.bf16);
    for (const float value : {largest, -largest, 0x1.FFp+127f, 0x1.FEFFFEp+127f, last_held}) {
      for (const int64_t token : {8, 9, 38, 39}) {  // either of a pair
        for (const int64_t d : {0, 17, 31}) {
          CAPTURE(value);
          CAPTURE(token);
          Problem problem = integer_problem({40}, 1, 32, topk_by_number(4));
          for (int64_t key = 0; key < 40; ++key) {
            for (int64_t i = 0; i < 32; ++i) {
              problem.q(key, 0, i) = 1.0f;
              problem.k(key, 0, i) = key < 4 ? 1.0f : -1.0f;
              problem.v(key, 0, i) = 1.0f;
            }
          }
          problem.v(token, 0, d) = value;
          const Solution solution = solve_by(kernel, problem);
          for (const float found : solution.context) CHECK(std::abs(found - 1) < 1e-2f);
        }
      }
    }
  }
}

TEST_CASE("a key out of sight does not turn a row into NaN") {
  for (const Kernel& kernel : kernels()) {
    Problem problem = random_problem({60}, 1, 32, band(9, 0));
    problem.k(30, 0, 5) = kNaN;
    const Solution solution = solve_by(kernel, problem);
    CHECK_FALSE(any_nan(solution, 0, 26 * 32));
    CHECK(any_nan(solution, 26 * 32, 27 * 32));
    CHECK(any_nan(solution, 34 * 32, 35 * 32));
    CHECK_FALSE(any_nan(solution, 35 * 32, 60 * 32));
  }
}

TEST_CASE("a block score that is NaN makes its queries see every block, and no other query") {
  for (const Kernel& kernel : kernels()) {
    Problem problem = random_problem({80}, 1, 32, blocktopk_by_number(8, 1));
    for (int64_t d = 0; d < 32; ++d) problem.q(20, 0, d) = d == 0 ? kNaN : 0.0f;
    for (int64_t token = 0; token < 80; ++token) {
      problem.v(token, 0, 0) = 1.0f;
      problem.v(token, 0, 1) = static_cast<float>(token);
    }
    const Solution solution = solve_by(kernel, problem);
    CHECK_FALSE(any_nan(solution, 0, 20 * 32));
    CHECK(any_nan(solution, 20 * 32, 21 * 32));  // token 20 scores no key
    CHECK_FALSE(any_nan(solution, 21 * 32, 80 * 32));
    Problem clean = problem;
    clean.pattern = dense();
    const Solution expected = solve_by(kernel, clean);
    for (size_t d = 16 * 32; d < 24 * 32; ++d) {  // its block
      if (d / 32 != 20) CHECK(solution.context[d] == expected.context[d]);
    }
    CHECK(solution.context[30 * 32 + 1] != expected.context[30 * 32 + 1]);
  }
}

TEST_CASE("scores of -inf among finite ones are probabilities of zero") {
  for (const Pattern& pattern : {dense(), topk_by_number(20), topk_by_number(39)}) {
    Problem problem = integer_problem({40}, 1, 32, pattern);
    for (int64_t token = 0; token < 40; ++token) {
      for (int64_t d = 0; d < 32; ++d) problem.q(token, 0, d) = 1.0f;
      if (token % 3 == 0) problem.k(token, 0, 0) = -kInfinity;
    }
    check_against_reference(problem);
    for (const Kernel& kernel : kernels()) {
      const Solution solution = solve_by(kernel, problem);
      CHECK_FALSE(any_nan(solution, 0, 40 * 32));
      CHECK(solution.received[3] == 0.0f);
    }
  }
}

TEST_CASE("sums that overflow are infinities like any other") {
  constexpr float kLarge = 0x1p100f;  // a power of two: its other products are exact
  for (const Pattern& pattern : few_patterns()) {
    Problem problem = integer_problem({25}, 1, 32, pattern);
    for (int64_t d = 0; d < 32; ++d) {
      problem.q(4, 0, d) = kLarge;
      problem.k(9, 0, d) = kLarge;
      problem.k(10, 0, d) = -kLarge;
    }
    check_against_reference(problem);
  }
}

}  // namespace
}  // namespace crisp
