#include "prune_tokens.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

namespace crisp {

void check_prune_rule(const PruneRule& rule) {
  if (rule.keep_num < 1 || rule.keep_den < rule.keep_num) {
    throw std::invalid_argument("keep_num / keep_den must lie in (0, 1], got " +
                                std::to_string(rule.keep_num) + " / " +
                                std::to_string(rule.keep_den));
  }
  // The bound keeps keep_num * L within 64 bits for every possible length.
  if (rule.keep_den > INT32_MAX) {
    throw std::invalid_argument("keep_den must not exceed 2147483647, got " +
                                std::to_string(rule.keep_den));
  }
  if (rule.floor < 1) {
    throw std::invalid_argument("floor must be at least 1, since [CLS] stays, got " +
                                std::to_string(rule.floor));
  }
}

void check_original_lengths(const int32_t* cu_seqlens, const int32_t* original_cu_seqlens,
                            int64_t batch) {
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t live = cu_seqlens[i + 1] - cu_seqlens[i];
    const int64_t length = original_cu_seqlens[i + 1] - original_cu_seqlens[i];
    if (length < live) {
      throw std::invalid_argument(
          "original_cu_seqlens must leave each sequence as long as it is, got " +
          std::to_string(length) + " for " + std::to_string(live) + " tokens of sequence " +
          std::to_string(i));
    }
  }
}

int64_t kept_tokens(const PruneRule& rule, int64_t length) {
  if (length <= rule.floor) return length;
  const int64_t above = length - rule.floor;
  return rule.floor + (above * rule.keep_num + rule.keep_den - 1) / rule.keep_den;
}

KeptTokens prune_tokens(const PruneRule& rule, const float* received, const int32_t* cu_seqlens,
                        const int32_t* original_cu_seqlens, int64_t batch) {
  const auto importance = [received](int64_t token) {
    const float value = received[token];
    return value == value ? value : std::numeric_limits<float>::infinity();
  };
  KeptTokens result;
  result.cu_seqlens.reserve(static_cast<size_t>(batch) + 1);
  result.cu_seqlens.push_back(0);
  result.kept.reserve(static_cast<size_t>(cu_seqlens[batch]));
  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    const int64_t begin = cu_seqlens[sequence];
    const int64_t live = cu_seqlens[sequence + 1] - begin;
    const int64_t length = original_cu_seqlens[sequence + 1] - original_cu_seqlens[sequence];
    const int64_t count = std::min(live, kept_tokens(rule, length));
    const size_t first = result.kept.size();
    result.kept.resize(first + static_cast<size_t>(live));
    const auto tokens = result.kept.begin() + static_cast<std::ptrdiff_t>(first);
    std::iota(tokens, result.kept.end(), begin);
    if (count < live) {
      const auto ranks_before = [&](int64_t one, int64_t other) {
        const float a = importance(one);
        const float b = importance(other);
        return a != b ? a > b : one < other;
      };
      std::nth_element(tokens + 1, tokens + count, result.kept.end(), ranks_before);
      result.kept.resize(first + static_cast<size_t>(count));
      std::sort(tokens + 1, result.kept.end());
    }
    result.cu_seqlens.push_back(static_cast<int32_t>(result.kept.size()));
  }
  return result;
}

}  // namespace crisp
