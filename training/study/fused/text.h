// One text's way through a model, forward and backward: encoder.py, row by row.
//
// Rows of a text are tokens. "Links" are the keys that a query attends to.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "layers.h"
#include "products.h"
#include "vectors.h"

namespace fused {

constexpr float kScale = 0.125f;  // of the scores, 1/√kWidth

struct Rule {      // which links are kept
  float sign = 0;  // +1: the k highest scores, -1: the k lowest, 0: as `links` says
  int k = 0;
  const float* links = nullptr;  // [keys, queries], 0 or -∞, rows padded to whole lines; null: all
};

struct Kept {  // of a block, for the backward pass; rows are tokens
  float *normal, *inverse, *qkv, *probabilities, *context, *second, *second_inverse, *inner;
};

struct Model {
  int blocks, classes;
  const float* embedding;
  float* embedding_gradient;
  std::vector<Linear> layers;  // qkv, out, up and down of each block, then the head
};

struct Dropout {  // of one model
  float scale;
  const int64_t* dropped;  // ascending positions, those of a site from starts[site] on
  const int64_t* starts = nullptr;

  // x [rows, kWidth], the text's `first` element of a batch, set to 0 or scaled up.
  void apply(int site, int64_t first, int rows, float* x) const {
    if (!dropped) return;
    for (int i = 0; i < rows * kWidth; ++i) x[i] *= scale;
    const int64_t* end = dropped + starts[site + 1];
    const int64_t* at = std::lower_bound(dropped + starts[site], end, first);
    for (; at < end && *at < first + rows * kWidth; ++at) x[*at - first] = 0;
  }
};

class Text {
 public:
  Text(int blocks, int length) : padded_(whole_lines(length)), kept_(blocks + 1) {
    const size_t wide = size_t(length) * kWidth, square = size_t(length) * padded_;
    memory_ = Memory((blocks + 1) * (7 * wide + square + 2 * padded_) + 7 * wide +
                     kWidth * padded_ + square);
    float* at = memory_.data();
    const auto take = [&at](size_t count) { return std::exchange(at, at + count); };
    for (Kept& kept : kept_)
      kept = {take(wide), take(padded_), take(3 * wide), take(square),
              take(wide), take(wide),    take(padded_),  take(wide)};
    hidden_ = take(wide), added_ = take(wide), gradient_ = take(wide), wide_ = take(3 * wide);
    inner_ = take(wide), turned_ = take(kWidth * padded_), scores_ = take(square);
  }

  // Logits [classes] of n tokens.
  void forward(const Model& model, const int64_t* tokens, int n, const float* positions,
               const Rule& rule, const Dropout& dropout, int64_t first, float* logits) {
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < kWidth; ++j)
        hidden_[i * kWidth + j] =
            model.embedding[tokens[i] * kWidth + j] + positions[i * kWidth + j];
    dropout.apply(0, first, n, hidden_);
    for (int block = 0; block < model.blocks; ++block) {
      const Linear* layer = &model.layers[4 * block];
      const Kept& kept = kept_[block];
      normalise(n, hidden_, kept.normal, kept.inverse);
      layer[0].forward(n, kept.normal, kept.qkv);
      attend(kept, n, rule);
      layer[1].forward(n, kept.context, added_);
      add(dropout, 1 + 2 * block, first, n);
      normalise(n, hidden_, kept.second, kept.second_inverse);
      layer[2].forward(n, kept.second, kept.inner);
      for (int i = 0; i < n * kWidth; ++i) kept.inner[i] = std::max(kept.inner[i], 0.0f);
      layer[3].forward(n, kept.inner, added_);
      add(dropout, 2 + 2 * block, first, n);
    }
    const Kept& last = kept_[model.blocks];
    normalise(n, hidden_, last.normal, last.inverse);
    std::fill_n(pooled_, kWidth, 0.0f);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < kWidth; ++j)
        pooled_[j] += last.normal[i * kWidth + j] / static_cast<float>(n);
    const Linear& head = model.layers.back();
    for (int c = 0; c < model.classes; ++c) {
      logits[c] = head.bias[c];
      for (int j = 0; j < kWidth; ++j) logits[c] += pooled_[j] * head.weight[j * model.classes + c];
    }
  }

  // Adds to the gradients of the model, from that of the logits.
  void backward(const Model& model, const int64_t* tokens, int n, const Dropout& dropout,
                int64_t first, const float* logits) {
    const Linear& head = model.layers.back();
    float pooled[kWidth] = {};
    for (int c = 0; c < model.classes; ++c) {
      head.bias_gradient[c] += logits[c];
      for (int j = 0; j < kWidth; ++j) {
        head.weight_gradient[j * model.classes + c] += pooled_[j] * logits[c];
        pooled[j] += head.weight[j * model.classes + c] * logits[c] / static_cast<float>(n);
      }
    }
    for (int i = 0; i < n; ++i) std::memcpy(added_ + i * kWidth, pooled, sizeof pooled);
    std::fill_n(gradient_, n * kWidth, 0.0f);
    const Kept& last = kept_[model.blocks];
    normalise_backward(n, last.normal, last.inverse, added_, gradient_);
    for (int block = model.blocks - 1; block >= 0; --block) {
      const Linear* layer = &model.layers[4 * block];
      const Kept& kept = kept_[block];
      undo_add(dropout, 2 + 2 * block, first, n);
      layer[3].backward(n, kept.inner, added_, inner_);
      for (int i = 0; i < n * kWidth; ++i) inner_[i] = kept.inner[i] > 0 ? inner_[i] : 0;
      layer[2].backward(n, kept.second, inner_, added_);
      normalise_backward(n, kept.second, kept.second_inverse, added_, gradient_);
      undo_add(dropout, 1 + 2 * block, first, n);
      layer[1].backward(n, kept.context, added_, inner_);
      attend_backward(kept, n);
      layer[0].backward(n, kept.normal, wide_, added_);
      normalise_backward(n, kept.normal, kept.inverse, added_, gradient_);
    }
    dropout.apply(0, first, n, gradient_);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < kWidth; ++j)
        model.embedding_gradient[tokens[i] * kWidth + j] += gradient_[i * kWidth + j];
  }

 private:
  void add(const Dropout& dropout, int site, int64_t first, int n) {
    dropout.apply(site, first, n, added_);
    for (int i = 0; i < n * kWidth; ++i) hidden_[i] += added_[i];
  }

  void undo_add(const Dropout& dropout, int site, int64_t first, int n) {
    std::memcpy(added_, gradient_, 4 * n * kWidth);
    dropout.apply(site, first, n, added_);
  }

  // Scores and probabilities are [keys, queries]: a vector is a key's with some queries, and
  // nothing has to be summed across it.
  void attend(const Kept& kept, int n, const Rule& rule) {
    const int row = 3 * kWidth;
    turn(n, kept.qkv, row);
    multiply(n, whole(n), kWidth, {kept.qkv + kWidth, row}, turned_, padded_, kept.probabilities,
             padded_);
    for (int i = 0; i < n; i += kLanes) softmax(kept.probabilities + i, n, rule, i);
    multiply(n, kWidth, n, {kept.probabilities, 1, padded_}, kept.qkv + 2 * kWidth, row,
             kept.context, kWidth);
  }

  // The scores of a vector of queries, from `first` on, become probabilities, 0 where there is no
  // link.
  void softmax(float* scores, int n, const Rule& rule, int first) {
    Floats largest = Floats{} - kInfinity, sum = {};
    for (int j = 0; j < n; ++j) {
      Floats score = kScale * load(scores + j * padded_);
      if (rule.links) score += load(rule.links + j * padded_ + first);
      store(scores + j * padded_, score);
      largest = score > largest ? score : largest;
    }
    Floats threshold = Floats{} - kInfinity;
    if (rule.sign != 0) {
      best_.resize(rule.k * kLanes);
      threshold = highest(scores, padded_, n, rule.k, rule.sign, best_.data());
      if (rule.sign < 0) largest = -load(best_.data() + (rule.k - 1) * kLanes);
    }
    for (int j = 0; j < n; ++j) {
      const Floats score = load(scores + j * padded_), shifted = score - largest;
      const Floats kept = shifted < Floats{} - 87.0f ? Floats{} : exponential(shifted);
      const Floats power = rule.sign * score < threshold ? Floats{} : kept;
      store(scores + j * padded_, power);
      sum += power;
    }
    for (int j = 0; j < n; ++j) store(scores + j * padded_, load(scores + j * padded_) / sum);
  }

  // From inner_, the gradient of the context, to wide_, that of queries, keys and values.
  void attend_backward(const Kept& kept, int n) {
    const int row = 3 * kWidth;
    const float *query = kept.qkv, *key = query + kWidth, *value = key + kWidth;
    turn(n, inner_, kWidth);
    multiply(n, whole(n), kWidth, {value, row}, turned_, padded_, scores_, padded_);
    multiply(n, kWidth, n, {kept.probabilities, padded_}, inner_, kWidth, wide_ + 2 * kWidth, row);
    for (int i = 0; i < n; i += kLanes) {
      const float* probabilities = kept.probabilities + i;
      float* scores = scores_ + i;
      Floats mean = {};
      for (int j = 0; j < n; ++j)
        mean += load(probabilities + j * padded_) * load(scores + j * padded_);
      for (int j = 0; j < n; ++j) {
        const Floats gradient = load(scores + j * padded_) - mean;
        store(scores + j * padded_, load(probabilities + j * padded_) * gradient * kScale);
      }
    }
    multiply(n, kWidth, n, {scores_, 1, padded_}, key, row, wide_, row);
    multiply(n, kWidth, n, {scores_, padded_}, query, row, wide_ + kWidth, row);
  }

  // To turned_ [kWidth, n], the n rows of `from`, with 0 up to a whole vector.
  void turn(int n, const float* from, int64_t row) {
    transpose(n, kWidth, from, row, turned_, padded_);
    for (int j = 0; j < kWidth; ++j)
      std::fill(turned_ + j * padded_ + n, turned_ + j * padded_ + whole(n), 0.0f);
  }

  int padded_;
  std::vector<Kept> kept_;
  Memory memory_;
  std::vector<float> best_;
  float *hidden_, *added_, *gradient_, *wide_, *inner_, *turned_, *scores_;
  float pooled_[kWidth];
};

}  // namespace fused
