#include "reference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace crisp {
namespace {

float dot(const float* a, const float* b, int64_t size) {
  float sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

// Probabilities of one row from its scores; keys that are not visible have a score of -inf.
// All NaN, for visible keys, where there is no softmax.
std::vector<float> softmax_over_kept(const std::vector<float>& scores,
                                     const std::vector<bool>& visible, int64_t kept) {
  const size_t length = scores.size();
  bool any_nan = false;
  for (size_t key = 0; key < length; ++key) any_nan |= visible[key] && std::isnan(scores[key]);
  std::vector<float> probabilities(length, 0.0f);
  std::vector<float> sorted = scores;
  if (!any_nan) std::sort(sorted.begin(), sorted.end(), std::greater<float>());
  if (any_nan || std::isinf(sorted[0])) {
    for (size_t key = 0; key < length; ++key) {
      if (visible[key]) probabilities[key] = std::numeric_limits<float>::quiet_NaN();
    }
    return probabilities;
  }
  const float threshold = sorted[static_cast<size_t>(kept - 1)];
  double sum = 0;
  for (size_t key = 0; key < length; ++key) {
    if (visible[key] && scores[key] >= threshold) {
      probabilities[key] = std::exp(scores[key] - sorted[0]);
      sum += probabilities[key];
    }
  }
  for (float& probability : probabilities) probability /= static_cast<float>(sum);
  return probabilities;
}

// The mean of `rows` rows, `stride` floats apart.
std::vector<float> mean_of(const float* from, int64_t stride, int64_t rows, int64_t head_size) {
  std::vector<float> mean(static_cast<size_t>(head_size), 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t d = 0; d < head_size; ++d) mean[static_cast<size_t>(d)] += from[row * stride + d];
  }
  for (float& value : mean) value /= static_cast<float>(rows);
  return mean;
}

// Which key blocks the queries of block `own` see.
std::vector<bool> chosen_blocks(const Pattern& pattern, const float* q, const float* k,
                                int64_t stride, int64_t length, int64_t head_size, int64_t own) {
  const int64_t blocks = block_count(pattern, length);
  const auto mean_of_block = [&](const float* from, int64_t block) {
    const int64_t begin = block * pattern.size;
    return mean_of(from + begin * stride, stride, std::min(pattern.size, length - begin),
                   head_size);
  };
  const std::vector<float> query = mean_of_block(q, own);
  std::vector<float> scores;
  bool any_nan = false;
  for (int64_t block = 0; block < blocks; ++block) {
    scores.push_back(dot(query.data(), mean_of_block(k, block).data(), head_size));
    any_nan |= std::isnan(scores.back());
  }
  if (any_nan) return std::vector<bool>(scores.size(), true);
  std::vector<float> sorted = scores;
  std::sort(sorted.begin(), sorted.end(), std::greater<float>());
  const float threshold = sorted[static_cast<size_t>(kept_blocks(pattern, blocks) - 1)];
  std::vector<bool> chosen;
  for (const float score : scores) chosen.push_back(score >= threshold);
  chosen[static_cast<size_t>(own)] = true;
  chosen[0] = true;
  return chosen;
}

// Which keys the query at position `query` sees.
std::vector<bool> visible_to(const Pattern& pattern, const float* q, const float* k, int64_t stride,
                             int64_t length, int64_t head_size, int64_t query) {
  const VisibleKeys keys = visible_keys(pattern, query, length);
  std::vector<bool> visible;
  for (int64_t key = 0; key < length; ++key) {
    visible.push_back(key < keys.globals_end || (key >= keys.begin && key < keys.end));
  }
  if (pattern.kind != PatternKind::kBlockTopK || query == 0) return visible;
  const std::vector<bool> chosen =
      chosen_blocks(pattern, q, k, stride, length, head_size, query / pattern.size);
  for (int64_t key = 0; key < length; ++key) {
    visible[static_cast<size_t>(key)] = chosen[static_cast<size_t>(key / pattern.size)];
  }
  return visible;
}

}  // namespace

void reference_attention(const Operands& operands) {
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  const int64_t stride = 3 * hidden;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_size));
  if (operands.received != nullptr) {
    std::fill_n(operands.received, operands.cu_seqlens[operands.batch], 0.0f);
  }
  const bool first_only = operands.queries == Queries::kFirst;
  if (first_only) std::fill_n(operands.context, operands.batch * hidden, 0.0f);
  for (int64_t sequence = 0; sequence < operands.batch; ++sequence) {
    const int64_t first = operands.cu_seqlens[sequence];
    const int64_t length = operands.cu_seqlens[sequence + 1] - first;
    for (int64_t head = 0; head < operands.num_heads; ++head) {
      const float* q = operands.qkv + first * stride + head * head_size;
      const float* k = q + hidden;
      const float* v = k + hidden;
      for (int64_t query = 0; query < (first_only ? std::min<int64_t>(1, length) : length);
           ++query) {
        const std::vector<bool> visible =
            visible_to(operands.pattern, q, k, stride, length, head_size, query);
        std::vector<float> scores(static_cast<size_t>(length),
                                  -std::numeric_limits<float>::infinity());
        for (int64_t key = 0; key < length; ++key) {
          if (visible[static_cast<size_t>(key)]) {
            scores[static_cast<size_t>(key)] =
                dot(q + query * stride, k + key * stride, head_size) * scale;
          }
        }
        const std::vector<float> probabilities =
            softmax_over_kept(scores, visible, kept_keys(operands.pattern, length));
        std::vector<double> context(static_cast<size_t>(head_size), 0.0);
        for (int64_t key = 0; key < length; ++key) {
          const float probability = probabilities[static_cast<size_t>(key)];
          if (probability == 0.0f) continue;
          for (int64_t d = 0; d < head_size; ++d) {
            context[static_cast<size_t>(d)] +=
                static_cast<double>(probability) * v[key * stride + d];
          }
          if (operands.received != nullptr) {
            operands.received[first + key] += probability / static_cast<float>(operands.num_heads);
          }
        }
        const int64_t row = first_only ? sequence : first + query;
        for (int64_t d = 0; d < head_size; ++d) {
          operands.context[row * hidden + head * head_size + d] =
              static_cast<float>(context[static_cast<size_t>(d)]);
        }
      }
    }
  }
}

}  // namespace crisp
