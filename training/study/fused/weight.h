// The products of a linear layer's weight, in float32.

#pragma once

#include <cstddef>

#include "products.h"
#include "transpose.h"
#include "vectors.h"

namespace fused {

struct Scratch {  // nothing is needed beside the factors
  Scratch(int, int, int) {}
};

struct Tiles {
  Tiles() {}
};

class Weight {  // [inputs, outputs]
 public:
  // To be called whenever the values have changed.
  void prepare(int inputs, int outputs, const float* values, bool learns) {
    inputs_ = inputs, outputs_ = outputs, values_ = values;
    if (!learns) return;
    turned_ = Memory(static_cast<size_t>(inputs) * outputs);
    transpose(inputs, outputs, values, outputs, turned_.data(), inputs);
  }

  // y [rows, outputs] = x · weight + bias
  void forward(int rows, const float* x, const float* bias, float* y, Scratch&) const {
    multiply(rows, outputs_, inputs_, {x, inputs_}, values_, outputs_, y, outputs_, {bias});
  }

  // dx [rows, inputs] = dy · weightᵀ
  void backward(int rows, const float* dy, float* dx, Scratch&) const {
    multiply(rows, inputs_, outputs_, {dy, outputs_}, turned_.data(), inputs_, dx, inputs_);
  }

  // gradient [inputs, outputs] += xᵀ · dy
  void add_gradient(int rows, const float* x, const float* dy, float* gradient, Scratch&) const {
    multiply(inputs_, outputs_, rows, {x, 1, inputs_}, dy, outputs_, gradient, outputs_,
             {gradient, outputs_});
  }

 private:
  int inputs_ = 0, outputs_ = 0;
  const float* values_ = nullptr;
  Memory turned_;
};

}  // namespace fused
