// A linear layer and LayerNorm, forward and backward, for the tokens of some texts.

#pragma once

#include <cmath>
#include <cstdint>

#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && !defined(FUSED_WITHOUT_AMX)
#include "weight_amx.h"
#else
#include "weight.h"
#endif

namespace fused {

constexpr int kWidth = 64;         // of the residual stream and of the feed-forward layer
constexpr float kEpsilon = 1e-5f;  // of LayerNorm

struct Linear {
  int inputs, outputs;
  const float *values = nullptr, *bias = nullptr;
  float *gradient = nullptr, *bias_gradient = nullptr;
  Weight weight = {};

  void prepare(bool learns) { weight.prepare(inputs, outputs, values, learns); }

  void forward(int rows, const float* x, float* y, Scratch& scratch) const {
    weight.forward(rows, x, bias, y, scratch);
  }

  // The gradient of x, from that of y; those of weight and bias are added to.
  void backward(int rows, const float* x, const float* dy, float* dx, Scratch& scratch) const {
    for (int j = 0; j < outputs; j += kLanes) {
      Floats sum = load(bias_gradient + j);
      for (int i = 0; i < rows; ++i) sum += load(dy + i * outputs + j);
      store(bias_gradient + j, sum);
    }
    weight.add_gradient(rows, x, dy, gradient, scratch);
    weight.backward(rows, dy, dx, scratch);
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
