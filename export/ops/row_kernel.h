// The interface between rows.cc and its kernel (row_kernel.cc), which is compiled once per
// instruction set under the rule of kernel.h: no inline functions with external linkage.
#pragma once

#include <stdint.h>

namespace crisp {

constexpr int64_t kBlockRows = 32;   // rows that one task computes together, at most
constexpr int64_t kStep = 16;        // int8: inputs are padded to a multiple of this
constexpr int64_t kMaxColumns = 64;  // outputs are padded to a multiple of the panel, at most this
constexpr int kActivationLevels = 127;  // quantised rows lie in [0, 127], see rows.h
constexpr int kWeightLevels = 64;       // and weights in [-64, 64]
// A row whose levels would lie no further apart counts as zeros, which moves none of its values by
// more than 1.3e-35: the inverse of a distance below 3e-39 is infinite.
constexpr float kSmallestStep = 1e-37f;

// One linear layer. Its weights lie in panels of `RowKernel::columns` outputs:
//   float  [panel][input][columns]
//   int8   [panel][input / 4][columns][4], inputs padded with zeros to a multiple of kStep
struct LinearWeights {
  const void* panels;
  bool quantised;
  int64_t inputs;
  int64_t outputs;
  const float* scale;  // of each output; padded with zeros to whole panels, as the next two
  const float* bias;
  const float* weight_sum;  // int8: the sum of the weights of each output, before scaling; or null
  const uint8_t* deep;  // int8: of each panel, whether a step fits into 16 bits, see kernel_dot.h
};

struct NormWeights {
  const float* gamma;
  const float* beta;
  float epsilon;
};

// One row of a table of embeddings: scale times the floats or the bytes, whichever is not null.
struct EmbeddingRow {
  const float* floats;
  const int8_t* bytes;
  float scale;
};

enum class Activation { kNone, kGelu };

// Memory of one task; every pointer is aligned to 64 bytes. There is room for the widest layer, but
// the rows of each lie as close as its own width lets them.
struct RowScratch {
  uint8_t* quantised;  // [rows][inputs of the layer, padded to kStep]
  float* scale;        // [rows]
  float* zero_point;   // [rows]
  float* wide;         // [rows][outputs of the widest layer]
  float* narrow;       // [rows][hidden]
};

// What rows.cc calls; at most kBlockRows rows at a time.
struct RowKernel {
  int64_t columns;    // outputs in a panel
  int64_t task_rows;  // rows that a task had best have, where there are enough for all threads

  // Rows [begin, end) of x [rows][inputs] into the scratch memory, for multiply(); of a layer of
  // floats nothing.
  void (*quantise)(const LinearWeights& layer, const float* x, int64_t begin, int64_t end,
                   const RowScratch& scratch);

  // y [rows][outputs] = activation(x · W + b), columns [begin, end), of which begin is a multiple
  // of `columns`, and end as well or all of them.
  void (*multiply)(const LinearWeights& layer, const float* x, int64_t rows, Activation activation,
                   float* y, int64_t begin, int64_t end, const RowScratch& scratch);

  // y = LayerNorm(first + second), all [rows][width]; y may be one of the others.
  void (*add_and_norm)(const float* first, const float* second, int64_t rows, int64_t width,
                       const NormWeights& norm, float* y);

  // y [width] = LayerNorm(word + position).
  void (*embed)(const EmbeddingRow& word, const EmbeddingRow& position, int64_t width,
                const NormWeights& norm, float* y);
};

namespace baseline {
extern const RowKernel kRowKernel;
}
namespace avx2 {
extern const RowKernel kRowKernel;
}
namespace avxvnni {
extern const RowKernel kRowKernel;
}
namespace avx512 {
extern const RowKernel kRowKernel;
}
namespace avx512vnni {
extern const RowKernel kRowKernel;
}
namespace amx {
extern const RowKernel kRowKernel;
}

}  // namespace crisp
