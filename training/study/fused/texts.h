// The way of some texts through a model, forward and backward: encoder.py, row by row.
//
// Rows are tokens, those of one text after those of another. "Links" are the keys that a query
// attends to.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "layers.h"
#include "model.h"
#include "products.h"
#include "transpose.h"
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

struct Dropout {  // of one model
  float scale;
  int64_t count;  // of elements at a site; 0: no dropout
  // Ascending positions in the elements of all sites, one after the other.
  const int64_t *dropped = nullptr, *end = nullptr;

  // x [rows, kWidth], a site's elements from `first` on, set to 0 or scaled up.
  void apply(int site, int64_t first, int rows, float* x) const {
    if (count == 0) return;
    for (int i = 0; i < rows * kWidth; ++i) x[i] *= scale;
    first += site * count;
    const int64_t* at = std::lower_bound(dropped, end, first);
    for (; at < end && *at < first + rows * kWidth; ++at) x[*at - first] = 0;
  }
};

struct Text {
  const int64_t* tokens;
  int n;          // of its tokens
  int row;        // its first
  int64_t first;  // its first element in a batch of texts
  Rule rule;
};

class Texts {
 public:
  // Of up to `most` texts of up to `length` tokens.
  Texts(int blocks, int length, int most)
      : padded_(whole_lines(length)),
        square_(size_t(length) * padded_),
        kept_(blocks + 1),
        scratch_(most * length, kWidth, 3 * kWidth) {
    const size_t rows = whole_lines(most * length), wide = rows * kWidth;
    const size_t squares = most * square_;
    memory_ = Memory((blocks + 1) * (7 * wide + squares + 2 * rows) + 7 * wide + kWidth * padded_ +
                     square_);
    float* at = memory_.data();
    const auto take = [&at](size_t count) { return std::exchange(at, at + count); };
    for (Kept& kept : kept_)
      kept = {take(wide), take(rows), take(3 * wide), take(squares),
              take(wide), take(wide), take(rows),     take(wide)};
    hidden_ = take(wide), added_ = take(wide), gradient_ = take(wide), wide_ = take(3 * wide);
    inner_ = take(wide), turned_ = take(kWidth * padded_), scores_ = take(square_);
  }

  // The texts that the next passes are of.
  void clear() { texts_.clear(), rows_ = 0; }
  void add(const int64_t* tokens, int n, int64_t first, const Rule& rule) {
    texts_.push_back({tokens, n, rows_, first, rule});
    rows_ += n;
  }

  // Logits [texts, classes].
  void forward(const Model& model, const float* positions, const Dropout& dropout, float* logits) {
    const float* embedding = model.parameters[0].values;
    for (const Text& text : texts_)
      for (int i = 0; i < text.n; ++i)
        for (int j = 0; j < kWidth; ++j)
          hidden_[(text.row + i) * kWidth + j] =
              embedding[text.tokens[i] * kWidth + j] + positions[i * kWidth + j];
    drop(dropout, 0, hidden_);
    for (int block = 0; block < model.blocks; ++block) {
      const Linear* layer = &model.layers[4 * block];
      const Kept& kept = kept_[block];
      normalise(rows_, hidden_, kept.normal, kept.inverse);
      layer[0].forward(rows_, kept.normal, kept.qkv, scratch_);
      for (size_t t = 0; t < texts_.size(); ++t) attend(kept, t);
      layer[1].forward(rows_, kept.context, added_, scratch_);
      add_dropped(dropout, 1 + 2 * block);
      normalise(rows_, hidden_, kept.second, kept.second_inverse);
      layer[2].forward(rows_, kept.second, kept.inner, scratch_);
      for (int i = 0; i < rows_ * kWidth; ++i) kept.inner[i] = std::max(kept.inner[i], 0.0f);
      layer[3].forward(rows_, kept.inner, added_, scratch_);
      add_dropped(dropout, 2 + 2 * block);
    }
    const Kept& last = kept_[model.blocks];
    normalise(rows_, hidden_, last.normal, last.inverse);
    const Linear& head = model.layers.back();
    for (const Text& text : texts_) {
      float pooled[kWidth];
      pool(text, pooled);
      for (int c = 0; c < model.classes; ++c, ++logits) {
        *logits = head.bias[c];
        for (int j = 0; j < kWidth; ++j) *logits += pooled[j] * head.values[j * model.classes + c];
      }
    }
  }

  // Adds to the gradients of the model, from that of the logits [texts, classes].
  void backward(const Model& model, const Dropout& dropout, const float* logits) {
    const Linear& head = model.layers.back();
    for (const Text& text : texts_) {
      float pooled[kWidth], slope[kWidth] = {};
      pool(text, pooled);
      for (int c = 0; c < model.classes; ++c, ++logits) {
        head.bias_gradient[c] += *logits;
        for (int j = 0; j < kWidth; ++j) {
          head.gradient[j * model.classes + c] += pooled[j] * *logits;
          slope[j] += head.values[j * model.classes + c] * *logits / static_cast<float>(text.n);
        }
      }
      for (int i = text.row; i < text.row + text.n; ++i)
        std::memcpy(added_ + i * kWidth, slope, sizeof slope);
    }
    std::fill_n(gradient_, rows_ * kWidth, 0.0f);
    const Kept& last = kept_[model.blocks];
    normalise_backward(rows_, last.normal, last.inverse, added_, gradient_);
    for (int block = model.blocks - 1; block >= 0; --block) {
      const Linear* layer = &model.layers[4 * block];
      const Kept& kept = kept_[block];
      slope_of_added(dropout, 2 + 2 * block);
      layer[3].backward(rows_, kept.inner, added_, inner_, scratch_);
      for (int i = 0; i < rows_ * kWidth; ++i) inner_[i] = kept.inner[i] > 0 ? inner_[i] : 0;
      layer[2].backward(rows_, kept.second, inner_, added_, scratch_);
      normalise_backward(rows_, kept.second, kept.second_inverse, added_, gradient_);
      slope_of_added(dropout, 1 + 2 * block);
      layer[1].backward(rows_, kept.context, added_, inner_, scratch_);
      for (size_t t = 0; t < texts_.size(); ++t) attend_backward(kept, t);
      layer[0].backward(rows_, kept.normal, wide_, added_, scratch_);
      normalise_backward(rows_, kept.normal, kept.inverse, added_, gradient_);
    }
    drop(dropout, 0, gradient_);
    float* embedding = model.parameters[0].gradient;
    for (const Text& text : texts_)
      for (int i = 0; i < text.n; ++i)
        for (int j = 0; j < kWidth; ++j)
          embedding[text.tokens[i] * kWidth + j] += gradient_[(text.row + i) * kWidth + j];
  }

 private:
  void drop(const Dropout& dropout, int site, float* x) const {
    for (const Text& text : texts_) dropout.apply(site, text.first, text.n, x + text.row * kWidth);
  }

  // To hidden_, what is in added_.
  void add_dropped(const Dropout& dropout, int site) {
    drop(dropout, site, added_);
    for (int i = 0; i < rows_ * kWidth; ++i) hidden_[i] += added_[i];
  }

  // To added_, the gradient of what it held.
  void slope_of_added(const Dropout& dropout, int site) {
    std::memcpy(added_, gradient_, sizeof(float) * rows_ * kWidth);
    drop(dropout, site, added_);
  }

  // The mean of a text's rows.
  void pool(const Text& text, float* pooled) const {
    const float* rows = kept_.back().normal + text.row * kWidth;
    std::fill_n(pooled, kWidth, 0.0f);
    for (int i = 0; i < text.n; ++i)
      for (int j = 0; j < kWidth; ++j) pooled[j] += rows[i * kWidth + j];
    for (int j = 0; j < kWidth; ++j) pooled[j] /= static_cast<float>(text.n);
  }

  // Scores and probabilities are [keys, queries]: a vector is a key's with some queries, and
  // nothing has to be summed across it.
  void attend(const Kept& kept, size_t t) {
    const auto& [tokens, n, start, first, rule] = texts_[t];
    const int row = 3 * kWidth;
    const float* qkv = kept.qkv + start * row;
    float* probabilities = kept.probabilities + t * square_;
    transpose(n, kWidth, qkv, row, turned_, padded_);
    multiply(n, whole(n), kWidth, {qkv + kWidth, row}, turned_, padded_, probabilities, padded_);
    for (int i = 0; i < n; i += kLanes) softmax(probabilities + i, n, rule, i);
    multiply(n, kWidth, n, {probabilities, 1, padded_}, qkv + 2 * kWidth, row,
             kept.context + start * kWidth, kWidth);
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
  void attend_backward(const Kept& kept, size_t t) {
    const int n = texts_[t].n, start = texts_[t].row, row = 3 * kWidth;
    const float *query = kept.qkv + start * row, *key = query + kWidth, *value = key + kWidth;
    const float *probabilities = kept.probabilities + t * square_, *slope = inner_ + start * kWidth;
    float* found = wide_ + start * row;
    transpose(n, kWidth, slope, kWidth, turned_, padded_);
    multiply(n, whole(n), kWidth, {value, row}, turned_, padded_, scores_, padded_);
    multiply(n, kWidth, n, {probabilities, padded_}, slope, kWidth, found + 2 * kWidth, row);
    for (int i = 0; i < n; i += kLanes) {
      float* scores = scores_ + i;
      Floats mean = {};
      for (int j = 0; j < n; ++j)
        mean += load(probabilities + i + j * padded_) * load(scores + j * padded_);
      for (int j = 0; j < n; ++j) {
        const Floats gradient = load(scores + j * padded_) - mean;
        store(scores + j * padded_, load(probabilities + i + j * padded_) * gradient * kScale);
      }
    }
    multiply(n, kWidth, n, {scores_, 1, padded_}, key, row, found, row);
    multiply(n, kWidth, n, {scores_, padded_}, query, row, found + kWidth, row);
  }

  int padded_, rows_ = 0;
  size_t square_;  // of a text's scores
  std::vector<Text> texts_;
  std::vector<Kept> kept_;
  Memory memory_;
  std::vector<float> best_;
  Scratch scratch_;
  float *hidden_, *added_, *gradient_, *wide_, *inner_, *turned_, *scores_;
};

}  // namespace fused
