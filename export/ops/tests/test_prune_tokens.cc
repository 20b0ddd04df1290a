// PruneTokens: counts, ties, [CLS], NaN. The Python tests hold it to training/pruning.py.
#include <cmath>
#include <stdexcept>
#include <vector>

#include "doctest/doctest.h"
#include "prune_tokens.h"

namespace crisp {
namespace {

TEST_CASE("how many stay") {
  const PruneRule rule = {3, 10, 16};
  CHECK(kept_tokens(rule, 0) == 0);
  CHECK(kept_tokens(rule, 16) == 16);
  CHECK(kept_tokens(rule, 17) == 17);
  CHECK(kept_tokens(rule, 26) == 19);
  CHECK(kept_tokens(rule, 27) == 20);
  CHECK(kept_tokens({1, 1000000, 1}, 4096) == 2);
  CHECK(kept_tokens({1, 1, 1}, 4096) == 4096);
  // The largest numbers there are: under UBSan, an overflow shows.
  CHECK(kept_tokens({INT32_MAX, INT32_MAX, 1}, INT32_MAX) == INT32_MAX);
  CHECK(kept_tokens({1 << 30, INT32_MAX, 1}, INT32_MAX) == (1 << 30) + 1);
  CHECK(kept_tokens({1, 2, INT64_MAX}, INT32_MAX) == INT32_MAX);
}

TEST_CASE("which stay: [CLS], the highest, of equal ones the earlier, NaN before all") {
  const float nan = std::nanf("");
  const std::vector<float> received = {0, 1, 3, 1, 2, /**/ 0, nan, 5, 5, 5};
  const std::vector<int32_t> offsets = {0, 5, 5, 10};
  const KeptTokens found =
      prune_tokens({1, 2, 1}, received.data(), offsets.data(), offsets.data(), 3);
  CHECK(found.kept == std::vector<int64_t>{0, 2, 4, 5, 6, 7});
  CHECK(found.cu_seqlens == std::vector<int32_t>{0, 3, 3, 6});
}

TEST_CASE("the original length decides, and what is gone stays gone") {
  const std::vector<float> received = {0, 1, 2, 3};
  const std::vector<int32_t> live = {0, 4};
  const std::vector<int32_t> original = {0, 8};
  CHECK(prune_tokens({1, 2, 1}, received.data(), live.data(), original.data(), 1).kept.size() == 4);
  CHECK(prune_tokens({1, 4, 1}, received.data(), live.data(), original.data(), 1).kept ==
        std::vector<int64_t>{0, 2, 3});
}

TEST_CASE("more live tokens than there were at first are refused") {
  const std::vector<int32_t> live = {0, 2, 52};
  CHECK_NOTHROW(check_original_lengths(live.data(), live.data(), 2));
  for (const std::vector<int32_t>& original : {std::vector<int32_t>{0, 2, 2}, {0, 60, 109}}) {
    CHECK_THROWS_AS(check_original_lengths(live.data(), original.data(), 2), std::invalid_argument);
  }
}

TEST_CASE("rules that make no sense are refused") {
  CHECK_THROWS_AS(check_prune_rule({0, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(check_prune_rule({2, 1, 1}), std::invalid_argument);
  CHECK_THROWS_AS(check_prune_rule({1, 2, 0}), std::invalid_argument);
  CHECK_NOTHROW(check_prune_rule({1, 1, 1}));
  CHECK_NOTHROW(check_prune_rule({INT32_MAX, INT32_MAX, INT64_MAX}));
  for (const int64_t large : {int64_t{1} << 31, int64_t{1} << 62, INT64_MAX}) {
    CHECK_THROWS_WITH_AS(check_prune_rule({1, large, 1}), doctest::Contains("keep_den"),
                         std::invalid_argument);
    CHECK_THROWS_WITH_AS(check_prune_rule({large, large, 1}), doctest::Contains("keep_den"),
                         std::invalid_argument);
  }
}

}  // namespace
}  // namespace crisp
