// The rules of the patterns: which keys are visible, how many are kept, which numbers are refused.
#include <doctest/doctest.h>

#include <stdexcept>

#include "problem.h"

namespace crisp {
namespace {

TEST_CASE("top-k keeps ceil(num L / den), at least one and at most L") {
  CHECK(kept_keys(topk_by_density(1, 20), 20) == 1);  // in floats, ceil(0.05 * 20) is 2
  CHECK(kept_keys(topk_by_density(1, 20), 21) == 2);
  CHECK(kept_keys(topk_by_density(1, 5), 1) == 1);
  CHECK(kept_keys(topk_by_density(1, 5), 25) == 5);
  CHECK(kept_keys(topk_by_density(1, 5), 26) == 6);
  CHECK(kept_keys(topk_by_density(1, 1), 77) == 77);
  CHECK(kept_keys(topk_by_density(999999, 1000000), INT32_MAX) <= INT32_MAX);
  CHECK(kept_keys(topk_by_number(7), 5) == 5);
  CHECK(kept_keys(topk_by_number(7), 50) == 7);
  CHECK(kept_keys(dense(), 50) == 50);
  CHECK(kept_keys(band(3, 0), 50) == 50);
  CHECK(kept_keys(blocktopk_by_number(8, 1), 50) == 50);
}

TEST_CASE("blocktopk keeps ceil(num N / den) of N blocks, at least one and at most N") {
  CHECK(block_count(blocktopk_by_number(8, 1), 0) == 0);
  CHECK(block_count(blocktopk_by_number(8, 1), 8) == 1);
  CHECK(block_count(blocktopk_by_number(8, 1), 9) == 2);
  CHECK(block_count(blocktopk_by_number(INT64_MAX, 1), 9) == 1);
  CHECK(block_count(dense(), 50) == 0);
  CHECK(block_count(block(8, 0), 50) == 0);
  CHECK(kept_blocks(blocktopk_by_density(8, 1, 20), 20) == 1);
  CHECK(kept_blocks(blocktopk_by_density(8, 1, 20), 21) == 2);
  CHECK(kept_blocks(blocktopk_by_number(8, 7), 5) == 5);
  CHECK(kept_blocks(blocktopk_by_number(8, 7), 50) == 7);
}

TEST_CASE("visible keys, against the definition") {
  for (const int64_t length : {1, 2, 9, 40}) {
    for (const int64_t globals : {0, 1, 5, 100}) {
      for (const int64_t number : {1, 3, 7, 41, 1001}) {
        for (int64_t query = 0; query < length; ++query) {
          const VisibleKeys in_band = visible_keys(band(number, globals), query, length);
          const VisibleKeys in_block = visible_keys(block(number, globals), query, length);
          for (int64_t key = 0; key < length; ++key) {
            const bool global = key < globals || query < globals;
            const auto sees = [&](const VisibleKeys& keys) {
              return key < keys.globals_end || (key >= keys.begin && key < keys.end);
            };
            CHECK(sees(in_band) == (global || std::abs(query - key) <= number / 2));
            CHECK(sees(in_block) == (global || query / number == key / number));
          }
          for (const VisibleKeys& keys : {in_band, in_block}) {
            CHECK(keys.globals_end >= 0);
            CHECK(keys.globals_end <= length);
            CHECK(keys.begin >= 0);
            CHECK(keys.begin < keys.end);
            CHECK(keys.end <= length);
          }
        }
      }
    }
  }
}

TEST_CASE("numbers out of range are refused by name") {
  CHECK_NOTHROW(check_pattern(dense()));
  CHECK_NOTHROW(check_pattern(topk_by_density(1, 5)));
  CHECK_NOTHROW(check_pattern(band(INT64_MAX, INT64_MAX)));
  CHECK_NOTHROW(check_pattern(block(INT64_MAX, 0)));
  CHECK_THROWS_WITH_AS(check_pattern(topk_by_density(0, 5)), doctest::Contains("density_num"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(topk_by_density(6, 5)), doctest::Contains("density_num"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(topk_by_density(1, 0)), doctest::Contains("density_den"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(topk_by_density(1, INT64_MAX)),
                       doctest::Contains("density_den"), std::invalid_argument);
  for (const Pattern& nothing_said : {topk_by_number(0), blocktopk_by_number(8, 0)}) {
    CHECK_THROWS_WITH_AS(check_pattern(nothing_said), doctest::Contains("without attribute k"),
                         std::invalid_argument);
  }
  CHECK_THROWS_WITH_AS(check_pattern(topk_by_number(-1)), doctest::Contains("k must"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(band(4, 0)), doctest::Contains("window"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(band(-3, 0)), doctest::Contains("window"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(block(0, 0)), doctest::Contains("size"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(block(4, -1)), doctest::Contains("globals"),
                       std::invalid_argument);
  CHECK_NOTHROW(check_pattern(blocktopk_by_number(INT64_MAX, INT64_MAX)));
  CHECK_THROWS_WITH_AS(check_pattern(blocktopk_by_number(0, 1)), doctest::Contains("size"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(blocktopk_by_number(8, -1)), doctest::Contains("k must"),
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check_pattern(blocktopk_by_density(8, 6, 5)),
                       doctest::Contains("density_num"), std::invalid_argument);
}

TEST_CASE("numbers beyond every length are as good as infinite") {
  for (const Isa isa : supported_isas()) {
    const Problem problem = random_problem({33}, 1, 32, dense());
    const Solution expected = solve(problem, isa);
    for (const Pattern& pattern :
         {band(INT64_MAX, INT64_MAX), band(INT64_MAX, 0), block(INT64_MAX, 0), band(1, 33)}) {
      Problem wide = problem;
      wide.pattern = pattern;
      CHECK(solve(wide, isa).context == expected.context);
    }
  }
}

}  // namespace
}  // namespace crisp
