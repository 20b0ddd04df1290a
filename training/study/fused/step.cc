// A step of the Semantic Focus study's encoder, forward, backward and SGD, for many models at once.
//
// The same computation as encoder.py, in float32 (with AMX: weight_amx.h), a few texts after the
// others: what they need of all layers stays in the processor's cache, where torch writes every
// intermediate result of a batch to memory. Padding is not computed. step.py builds and calls this.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "model.h"
#include "texts.h"

struct Step {  // `_Step` of step.py
  int32_t models, batch, length, blocks, classes, symbols, threads;
  float sign;              // as in Rule
  float* const* weights;   // the embedding, then each layer's weight and bias, [models, ...]
  const int64_t* tokens;   // [models, batch, length]
  const int64_t* lengths;  // [models, batch]
  const int64_t* labels;   // [models, batch]
  const int64_t* kept;     // [models, batch], how many links a row keeps; where sign is not 0
  const float* links;      // [lengths, length, length up to whole lines], or null
  const int64_t* which;    // [models, batch]: the row of links
  const float* positions;  // [length, width]
  const int64_t* dropped;  // or null, also where nothing is
  const int64_t* starts;   // [models + 1] into dropped
  int64_t count;           // of a model's elements at a site of dropout
  float scale;             // of what is not dropped
  float rate, clip;        // of a step of SGD with the gradient of the mean loss; rate 0: none
  float* losses;           // [models, batch]
  uint8_t* right;          // [models, batch]
};

namespace {

using namespace fused;

// Tokens that go through a layer together: weights and their gradients are read once for all of
// them, and what they need of all layers still lies in the processor's own cache.
constexpr int kRowsTogether = 128;

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
  const Tiles tiles;
  const bool learns = s.rate != 0;
  const int together = std::min(s.batch, std::max(1, kRowsTogether / s.length));
  Texts texts(s.blocks, s.length, together);
  std::vector<float> logits(together * s.classes);
  for (int64_t m = first; m < s.models; m += s.threads) {
    Model model(s.blocks, s.classes, s.symbols, s.weights, m, learns);
    Dropout dropout{s.scale, s.count};
    if (s.dropped)
      dropout.dropped = s.dropped + s.starts[m], dropout.end = s.dropped + s.starts[m + 1];
    for (int64_t from = 0; from < s.batch; from += together) {
      const int64_t end = std::min<int64_t>(from + together, s.batch), at = m * s.batch;
      texts.clear();
      for (int64_t b = from; b < end; ++b) {
        Rule rule{s.sign};
        if (s.kept) rule.k = static_cast<int>(s.kept[at + b]);
        if (s.links) rule.links = s.links + s.which[at + b] * s.length * whole_lines(s.length);
        texts.add(s.tokens + (at + b) * s.length, static_cast<int>(s.lengths[at + b]),
                  b * s.length * kWidth, rule);
      }
      texts.forward(model, s.positions, dropout, logits.data());
      for (int64_t b = from; b < end; ++b)
        s.losses[at + b] = cross_entropy(s.classes, s.labels[at + b], s.batch,
                                         &logits[(b - from) * s.classes], s.right + at + b);
      if (learns) texts.backward(model, dropout, logits.data());
    }
    if (learns) model.descend(s.rate, s.clip);
  }
}

}  // namespace

extern "C" void crisp_encoder_step(const Step* step) {
  std::vector<std::thread> others;
  for (int i = 1; i < step->threads; ++i) others.emplace_back(run, *step, i);
  run(*step, 0);
  for (std::thread& other : others) other.join();
}
