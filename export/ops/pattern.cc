#include "pattern.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace crisp {
namespace {

void require(bool condition, const char* rule, int64_t value) {
  if (!condition) throw std::invalid_argument(rule + (", got " + std::to_string(value)));
}

int64_t share_of(const Pattern& pattern, int64_t count) {
  if (pattern.k > 0) return std::min(pattern.k, count);
  const int64_t rounded_up =
      (pattern.density_num * count + pattern.density_den - 1) / pattern.density_den;
  return std::max<int64_t>(1, rounded_up);
}

}  // namespace

void check_pattern(const Pattern& pattern) {
  switch (pattern.kind) {
    case PatternKind::kDense:
      return;
    case PatternKind::kBlockTopK:
      require(pattern.size >= 1, "pattern blocktopk: attribute size must be positive",
              pattern.size);
      [[fallthrough]];
    case PatternKind::kTopK:
      require(pattern.k >= 0, "attribute k must not be negative", pattern.k);
      if (pattern.k > 0) return;
      if (pattern.density_num == 0 && pattern.density_den == 0) {
        throw std::invalid_argument(
            "without attribute k, density_num must lie in [1, density_den], got 0 and 0");
      }
      // The bound keeps num * L within 64 bits for every possible length.
      require(pattern.density_den >= 1 && pattern.density_den <= INT32_MAX,
              "attribute density_den must lie in [1, 2147483647]", pattern.density_den);
      require(pattern.density_num >= 1 && pattern.density_num <= pattern.density_den,
              "attribute density_num must lie in [1, density_den]", pattern.density_num);
      return;
    case PatternKind::kBand:
      require(pattern.window >= 1 && pattern.window % 2 == 1,
              "pattern band: attribute window must be odd and positive", pattern.window);
      break;
    case PatternKind::kBlock:
      require(pattern.size >= 1, "pattern block: attribute size must be positive", pattern.size);
      break;
  }
  require(pattern.globals >= 0, "attribute globals must not be negative", pattern.globals);
}

VisibleKeys visible_keys(const Pattern& pattern, int64_t query, int64_t length) {
  const bool local = pattern.kind == PatternKind::kBand || pattern.kind == PatternKind::kBlock;
  if (!local || query < pattern.globals) return {0, 0, length};
  const int64_t globals_end = std::min(pattern.globals, length);
  if (pattern.kind == PatternKind::kBand) {
    const int64_t reach = std::min(pattern.window / 2, length);
    return {globals_end, std::max<int64_t>(0, query - reach), std::min(length, query + reach + 1)};
  }
  const int64_t begin = query - query % pattern.size;
  return {globals_end, begin, begin + std::min(pattern.size, length - begin)};
}

int64_t kept_keys(const Pattern& pattern, int64_t length) {
  return pattern.kind == PatternKind::kTopK ? share_of(pattern, length) : length;
}

int64_t block_count(const Pattern& pattern, int64_t length) {
  if (pattern.kind != PatternKind::kBlockTopK || length == 0) return 0;
  return (length - 1) / pattern.size + 1;
}

int64_t kept_blocks(const Pattern& pattern, int64_t blocks) { return share_of(pattern, blocks); }

}  // namespace crisp
