// A model's parameters, its layers, and a step of SGD.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "layers.h"
#include "vectors.h"

namespace fused {

struct Parameter {
  float* values;
  int64_t size;
  float* gradient = nullptr;
};

struct Model {
  int blocks, classes;
  std::vector<Parameter> parameters;  // the embedding, then each layer's weight and bias
  std::vector<Linear> layers;         // qkv, out, up and down of each block, then the head
  Memory gradients = {};              // of all parameters, where it learns

  // The model `m` of those whose `weights` are given, in the order of `parameters`.
  Model(int blocks, int classes, int symbols, float* const* weights, int64_t m, bool learns)
      : blocks(blocks), classes(classes) {
    const auto take = [&](int64_t size) { parameters.push_back({*weights++ + m * size, size}); };
    take(int64_t{symbols} * kWidth);
    const int head = 4 * blocks;
    for (int i = 0; i <= head; ++i) {
      const int outputs = i == head ? classes : i % 4 ? kWidth : 3 * kWidth;
      layers.push_back({kWidth, outputs});
      take(int64_t{kWidth} * outputs), take(outputs);
    }
    if (learns) take_gradients();
    for (int i = 0; i <= head; ++i) {
      const Parameter &weight = parameters[1 + 2 * i], &bias = parameters[2 + 2 * i];
      layers[i].values = weight.values, layers[i].gradient = weight.gradient;
      layers[i].bias = bias.values, layers[i].bias_gradient = bias.gradient;
      if (i < head) layers[i].prepare(learns);
    }
  }

  // A step against the gradient, which is clipped by its norm.
  void descend(float rate, float clip) {
    float squares = 0;
    for (const Parameter& each : parameters)
      for (int64_t i = 0; i < each.size; ++i) squares += each.gradient[i] * each.gradient[i];
    const float share = clip / (std::sqrt(squares) + 1e-6f);
    const float step = rate * (share > 1 ? 1 : share);
    for (const Parameter& each : parameters)
      for (int64_t i = 0; i < each.size; ++i) each.values[i] -= each.gradient[i] * step;
  }

 private:
  void take_gradients() {
    int64_t count = 0;
    for (const Parameter& each : parameters) count += each.size;
    gradients = Memory(count);
    std::fill_n(gradients.data(), count, 0.0f);
    float* next = gradients.data();
    for (Parameter& each : parameters) each.gradient = std::exchange(next, next + each.size);
  }
};

}  // namespace fused
