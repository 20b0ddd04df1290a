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

}  // namespace

void reference_attention(const Operands& operands) {
  const int64_t head_size = operands.head_size;
  const int64_t hidden = operands.num_heads * head_size;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_size));
  if (operands.received != nullptr) {
    std::fill_n(operands.received, operands.cu_seqlens[operands.batch], 0.0f);
  }
  for (int64_t sequence = 0; sequence < operands.batch; ++sequence) {
    const int64_t first = operands.cu_seqlens[sequence];
    const int64_t length = operands.cu_seqlens[sequence + 1] - first;
    for (int64_t head = 0; head < operands.num_heads; ++head) {
      const float* q = operands.qkv + first * 3 * hidden + head * head_size;
      const float* k = q + hidden;
      const float* v = k + hidden;
      for (int64_t query = 0; query < length; ++query) {
        const VisibleKeys keys = visible_keys(operands.pattern, query, length);
        std::vector<bool> visible(static_cast<size_t>(length));
        std::vector<float> scores(static_cast<size_t>(length),
                                  -std::numeric_limits<float>::infinity());
        for (int64_t key = 0; key < length; ++key) {
          const size_t at = static_cast<size_t>(key);
          visible[at] = key < keys.globals_end || (key >= keys.begin && key < keys.end);
          if (visible[at]) {
            scores[at] = dot(q + query * 3 * hidden, k + key * 3 * hidden, head_size) * scale;
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
                static_cast<double>(probability) * v[key * 3 * hidden + d];
          }
          if (operands.received != nullptr) {
            operands.received[first + key] += probability / static_cast<float>(operands.num_heads);
          }
        }
        for (int64_t d = 0; d < head_size; ++d) {
          operands.context[(first + query) * hidden + head * head_size + d] =
              static_cast<float>(context[static_cast<size_t>(d)]);
        }
      }
    }
  }
}

}  // namespace crisp
