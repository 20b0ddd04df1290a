// A step of the Semantic Focus study's encoder, forward and backward, for many models at once.
//
// The same computation as encoder.py, in float32, one text after the other: what a text needs of
// its layers stays in the processor's cache, where torch writes every intermediate result of a
// batch to memory. Padding is not computed. step.py builds and calls this.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "text.h"

struct Step {  // `_Step` of step.py
  int32_t models, batch, length, blocks, classes, symbols, threads;
  float sign;                   // as in Rule
  const float* const* weights;  // the embedding, then each layer's weight and bias, [models, ...]
  float* const* gradients;      // likewise, or null: forward alone
  const int64_t* tokens;        // [models, batch, length]
  const int64_t* lengths;       // [models, batch]
  const int64_t* labels;        // [models, batch]
  const int64_t* kept;          // [models, batch], how many links a row keeps; where sign is not 0
  const float* links;           // [lengths, length, length up to whole lines], or null
  const int64_t* which;         // [models, batch]: the row of links
  const float* positions;       // [length, width]
  const int64_t* dropped;       // or null
  const int64_t* starts;        // [models · sites + 1] into dropped
  float scale;                  // of what is not dropped
  float* losses;                // [models, batch]
  uint8_t* right;               // [models, batch]
};

namespace {

using namespace fused;

// Model m of them, its gradients to be added to.
Model model_of(const Step& s, int64_t m) {
  const auto weight = [&](int i, int64_t size) { return s.weights[i] + m * size; };
  const auto gradient = [&](int i, int64_t size) {
    return s.gradients ? s.gradients[i] + m * size : nullptr;
  };
  const int64_t table = int64_t{s.symbols} * kWidth;
  Model model{s.blocks, s.classes, weight(0, table), gradient(0, table), {}};
  const int head = 4 * s.blocks;
  for (int i = 0; i <= head; ++i) {
    Linear layer{kWidth, i == head ? s.classes : i % 4 ? kWidth : 3 * kWidth};
    const int64_t size = int64_t{layer.inputs} * layer.outputs;
    layer.weight = weight(1 + 2 * i, size), layer.bias = weight(2 + 2 * i, layer.outputs);
    layer.weight_gradient = gradient(1 + 2 * i, size);
    layer.bias_gradient = gradient(2 + 2 * i, layer.outputs);
    if (s.gradients && i < head) layer.turn();
    model.layers.push_back(std::move(layer));
  }
  return model;
}

// Cross-entropy; `logits` becomes its gradient, divided by `batch`.
float cross_entropy(int classes, int64_t label, int batch, float* logits, uint8_t* right) {
  const float* best = std::max_element(logits, logits + classes);
  const float largest = *best;
  *right = best - logits == label;
  float sum = 0;
  for (int c = 0; c < classes; ++c) sum += std::exp(logits[c] - largest);
  const float loss = largest + std::log(sum) - logits[label];
  for (int c = 0; c < classes; ++c) {
    const float probability = std::exp(logits[c] - largest) / sum;
    logits[c] = (probability - static_cast<float>(c == label)) / static_cast<float>(batch);
  }
  return loss;
}

// Every `threads`-th model from `first` on.
void run(const Step& s, int first) {
  Text text(s.blocks, s.length);
  std::vector<float> logits(s.classes);
  for (int64_t m = first; m < s.models; m += s.threads) {
    const Model model = model_of(s, m);
    Dropout dropout{s.scale, s.dropped};
    if (s.dropped) dropout.starts = s.starts + m * (1 + 2 * s.blocks);
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = m * s.batch + b, place = b * s.length * kWidth;
      const int64_t* tokens = s.tokens + at * s.length;
      const int n = static_cast<int>(s.lengths[at]);
      Rule rule{s.sign};
      if (s.kept) rule.k = static_cast<int>(s.kept[at]);
      if (s.links) rule.links = s.links + s.which[at] * s.length * whole_lines(s.length);
      text.forward(model, tokens, n, s.positions, rule, dropout, place, logits.data());
      s.losses[at] = cross_entropy(s.classes, s.labels[at], s.batch, logits.data(), s.right + at);
      if (s.gradients) text.backward(model, tokens, n, dropout, place, logits.data());
    }
  }
}

}  // namespace

extern "C" void crisp_encoder_step(const Step* step) {
  std::vector<std::thread> others;
  for (int i = 1; i < step->threads; ++i) others.emplace_back(run, *step, i);
  run(*step, 0);
  for (std::thread& other : others) other.join();
}
