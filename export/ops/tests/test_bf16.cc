// Attention that may multiply in bfloat16: where the processor does, within what its rounding
// allows, elsewhere as without. Values of integer_problem() are exact in eight bits, so that scores
// are exact too and only the numerators of the softmax are rounded.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "problem.h"

namespace crisp {
namespace {

constexpr double kRounding = 1.0 / 256;  // of a product, in relation to it

Problem rounding(Problem problem) {
  problem.bf16 = true;
  return problem;
}

void check_all_isas(const Problem& problem) {
  CAPTURE(text_of(problem));
  double largest = 1;
  for (const float value : problem.qkv) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(static_cast<double>(value)));
  }
  const Solution expected = solve_by_reference(problem);
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    check_same(problem, solve(rounding(problem), isa), expected, kRounding * largest);
  }
}

TEST_CASE("products of bfloat16, every pattern and many lengths") {
  for (const int64_t length : {1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 129, 513}) {
    for (const Pattern& pattern : patterns_for(length)) {
      for (const int64_t head_size : {32, 64}) {
        const Problem problem = integer_problem({length}, 2, head_size, pattern);
        check_all_isas(problem);
        check_all_isas(first_only(problem));
      }
    }
  }
}

TEST_CASE("heads that fill no tile are computed in floats") {
  for (const int64_t head_size : {20, 48, 96}) {
    const Problem problem = random_problem({41, 6}, 2, head_size, topk_by_density(1, 5));
    for (const Isa isa : supported_isas()) {
      CHECK(solve(rounding(problem), isa).context == solve(problem, isa).context);
    }
  }
}

TEST_CASE("a sequence's result in bfloat16 does not depend on its batch, and is rounded") {
  const Problem one = random_problem({90}, 2, 32, blocktopk_by_number(16, 2));
  Problem three = random_problem({7, 90, 300}, 2, 32, blocktopk_by_number(16, 2));
  std::copy(one.qkv.begin(), one.qkv.end(), three.qkv.begin() + 7 * 192);
  for (const Isa isa : supported_isas()) {
    CAPTURE(name_of(isa));
    const Solution alone = solve(rounding(one), isa);
    const Solution together = solve(rounding(three), isa);
    for (size_t i = 0; i < alone.context.size(); ++i) {
      REQUIRE(together.context[7 * 64 + i] == alone.context[i]);
    }
    CHECK((alone.context != solve(one, isa).context) == (isa >= Isa::kAvx512Bf16));
  }
}

TEST_CASE("values that are not finite stay where they are, in bfloat16 as well") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float strange : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (const Pattern& pattern : {dense(), topk_by_number(3), band(5, 1)}) {
      for (const int part : {0, 1, 2}) {
        Problem problem = integer_problem({40, 40}, 1, 32, pattern);
        float& value = part == 0   ? problem.q(50, 0, 3)
                       : part == 1 ? problem.k(50, 0, 3)
                                   : problem.v(50, 0, 3);
        value = strange;
        CAPTURE(part);
        CAPTURE(strange);
        check_all_isas(problem);
      }
    }
  }
}

}  // namespace
}  // namespace crisp
