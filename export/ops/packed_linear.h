// The weights of a linear layer as one kernel reads them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "row_kernel.h"
#include "thread_memory.h"

namespace crisp {

// Throws std::invalid_argument where weights of these sizes are none.
void check_weight_sizes(int64_t inputs, int64_t outputs);

// A linear layer, its weights laid out for one kernel, which alone may compute with them.
class PackedLinear {
 public:
  // weight: [inputs, outputs], row by row, float or int8 with every value in [-64, 64];
  // scale, bias: [outputs]. All are copied. Throws std::invalid_argument for other values, and
  // where there are no inputs or no outputs.
  PackedLinear(const RowKernel& kernel, const float* weight, const float* scale, const float* bias,
               int64_t inputs, int64_t outputs);
  PackedLinear(const RowKernel& kernel, const int8_t* weight, const float* scale, const float* bias,
               int64_t inputs, int64_t outputs);

  const LinearWeights& weights() const { return weights_; }

  // Whether both hold the same weights in the same layout, and a hash of them.
  bool operator==(const PackedLinear& other) const;
  size_t hash() const;

 private:
  void set_shape(int64_t inputs, int64_t outputs);
  template <typename Weight>
  void pack(const RowKernel& kernel, const Weight* weight, const float* scale, const float* bias);

  LinearWeights weights_{};
  int64_t panel_columns_ = 0;
  std::vector<float> columns_;  // scale, bias and, of int8, sum of the weights: of each output
  std::vector<uint8_t> deep_;   // see LinearWeights
  Aligned panels_;
  size_t bytes_ = 0;  // of the panels
};

}  // namespace crisp
