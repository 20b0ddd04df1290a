// A linear layer and LayerNorm, forward and backward, for the tokens of one text.

#pragma once

#include <cmath>
#include <cstdint>

#include "products.h"
#include "vectors.h"

namespace fused {

constexpr int kWidth = 64;         // of the residual stream and of the feed-forward layer
constexpr float kEpsilon = 1e-5f;  // of LayerNorm

struct Linear {
  int inputs, outputs;
  const float *weight = nullptr, *bias = nullptr;
  float *weight_gradient = nullptr, *bias_gradient = nullptr;
  Memory turned = {};  // the weight, [outputs, inputs], for the backward pass

  void turn() {
    turned = Memory(static_cast<size_t>(inputs) * outputs);
    transpose(inputs, outputs, weight, outputs, turned.data(), inputs);
  }

  void forward(int rows, const float* x, float* y) const {
    multiply(rows, outputs, inputs, {x, inputs}, weight, outputs, y, outputs, {bias});
  }

  // The gradient of x, from that of y; those of weight and bias are added to.
  void backward(int rows, const float* x, const float* dy, float* dx) const {
    for (int j = 0; j < outputs; j += kLanes) {
      Floats sum = load(bias_gradient + j);
      for (int i = 0; i < rows; ++i) sum += load(dy + i * outputs + j);
      store(bias_gradient + j, sum);
    }
    multiply(inputs, outputs, rows, {x, 1, inputs}, dy, outputs, weight_gradient, outputs,
             {weight_gradient, outputs});
    multiply(rows, inputs, outputs, {dy, outputs}, turned.data(), inputs, dx, inputs);
  }
};

// LayerNorm without affine parameters.
inline void normalise(int rows, const float* x, float* y, float* inverse) {
  for (int i = 0; i < rows; ++i, x += kWidth, y += kWidth) {
    float mean = 0, square = 0;
    for (int j = 0; j < kWidth; ++j) mean += x[j];
    mean /= kWidth;
    for (int j = 0; j < kWidth; ++j) square += (x[j] - mean) * (x[j] - mean);
    inverse[i] = 1 / std::sqrt(square / kWidth + kEpsilon);
    for (int j = 0; j < kWidth; ++j) y[j] = (x[j] - mean) * inverse[i];
  }
}

// Adds the gradient of x, from that of y.
inline void normalise_backward(int rows, const float* y, const float* inverse, const float* dy,
                               float* dx) {
  for (int i = 0; i < rows; ++i, y += kWidth, dy += kWidth, dx += kWidth) {
    float mean = 0, along = 0;
    for (int j = 0; j < kWidth; ++j) mean += dy[j];
    for (int j = 0; j < kWidth; ++j) along += dy[j] * y[j];
    mean /= kWidth, along /= kWidth;
    for (int j = 0; j < kWidth; ++j) dx[j] += inverse[i] * (dy[j] - mean - y[j] * along);
  }
}

}  // namespace fused
