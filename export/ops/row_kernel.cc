// The kernel of the row operators (rows.h): one source for every instruction set.
//
// CMakeLists.txt compiles it once for each, with CRISP_ISA as the namespace, CRISP_VECTOR_BYTES as
// the width of a vector and CRISP_ROW_TILE as the number of rows whose sums, two vectors each, fit
// in the registers. kernel.h says what this file must not use.
//
// A product goes panel by panel of two vectors of outputs. A panel of weights stays in the first
// cache while the rows of the block pass by it, tile by tile; the scale, the bias and GELU are
// applied to the sums while they are still in registers.
#include "row_kernel.h"

#include <stdint.h>

#include "kernel.h"
#include "kernel_dot.h"
#include "kernel_isa.h"
#include "kernel_quantise.h"
#include "kernel_vectors.h"
#if defined(CRISP_AMX_INT8)
#include "kernel_amx.h"
#endif

namespace crisp {
namespace CRISP_ISA {
namespace {

constexpr int kRowTile = CRISP_ROW_TILE;
constexpr int kVectors = 2;  // of outputs in a panel
constexpr int64_t kColumns = kVectors * kLanes;
constexpr int64_t kLine = 64;  // of the cache
#if defined(CRISP_AMX_INT8)
constexpr int64_t kTaskRows = kBlockRows;  // products are quick, and reading the weights is not
#else
constexpr int64_t kTaskRows = kBlockRows / 2;
#endif
static_assert(kColumns <= kMaxColumns, "outputs are not padded enough");

// ---------------------------------------------------------------- element-wise

// x · Φ(x), where Φ(x) - 1/2 is odd: x times a polynomial in x², of the least absolute error in
// x · Φ(x) that its degree allows, which is 4e-7 for |x| up to 5, and 1.2e-6 in floats. Beyond, Φ
// is 0 or 1 to that precision.
__attribute__((always_inline)) inline Floats gelu(Floats x) {
  constexpr float kFarthest = 5;
  constexpr float kPolynomial[] = {
      0.000492969819f, -0.00151415449f, 0.00200185948f, -0.00291567156f, 0.00616543088f,
      -0.0109732328f,  0.0164976567f,   -0.0233367309f, 0.0314262286f,   -0.0404329486f,
      0.0515214205f,   -0.0702966526f,  0.141363785f};
  Floats near = x > kFarthest ? all(kFarthest) : x;
  near = near < -kFarthest ? all(-kFarthest) : near;
  const Floats t = near * near * (2 / (kFarthest * kFarthest)) - 1.0f;  // in [-1, 1]
  // Even and odd powers apart: two chains of additions half as long.
  const Floats square = t * t;
  Floats even = all(kPolynomial[0]);
  Floats odd = all(kPolynomial[1]);
#pragma GCC unroll 8
  for (int i = 2; i < 12; i += 2) {
    even = even * square + kPolynomial[i];
    odd = odd * square + kPolynomial[i + 1];
  }
  even = even * square + kPolynomial[12];
  const Floats series = odd * t + even;
  return x * (near * series + 0.5f);
}

// LayerNorm of one row, in place. `width` may be any number.
void norm_row(float* row, int64_t width, const NormWeights& norm) {
  const int64_t whole = width / kLanes * kLanes;
  Floats sums = {};
  for (int64_t i = 0; i < whole; i += kLanes) sums += load(row + i);
  float sum = sum_of(sums);
  for (int64_t i = whole; i < width; ++i) sum += row[i];
  const float mean = sum / static_cast<float>(width);
  Floats squares = {};
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats centred = load(row + i) - mean;
    squares += centred * centred;
  }
  float square = sum_of(squares);
  for (int64_t i = whole; i < width; ++i) square += (row[i] - mean) * (row[i] - mean);
  const float variance = square / static_cast<float>(width);
  const float inverse = 1.0f / __builtin_sqrtf(variance + norm.epsilon);
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats normal = (load(row + i) - mean) * inverse;
    store(row + i, normal * load(norm.gamma + i) + load(norm.beta + i));
  }
  for (int64_t i = whole; i < width; ++i) {
    row[i] = (row[i] - mean) * inverse * norm.gamma[i] + norm.beta[i];
  }
}

// ---------------------------------------------------------------- products

struct Rows {
  const LinearWeights& layer;
  const float* x;
  int64_t count;
  Activation activation;
  float* y;
  int64_t begin;  // columns of this call
  int64_t end;
  const RowScratch& scratch;
  int64_t quantised_stride;
};

// Stores one vector of the outputs from `column` on; the last panel may reach past the last output.
void store_outputs(float* y, int64_t column, int64_t outputs, Floats value) {
  if (column + kLanes <= outputs) return store(y + column, value);
  for (int64_t lane = 0; column + lane < outputs; ++lane) y[column + lane] = value[lane];
}

// One vector of the outputs from `column` on, from sums of products.
void finish(const Rows& rows, int64_t row, int64_t column, Floats sum) {
  const LinearWeights& layer = rows.layer;
  Floats value = sum * load(layer.scale + column) + load(layer.bias + column);
  if (rows.activation == Activation::kGelu) value = gelu(value);
  store_outputs(rows.y + row * layer.outputs, column, layer.outputs, value);
}

void finish(const Rows& rows, int64_t row, int64_t column, Ints sum) {
  const Floats dot = __builtin_convertvector(sum, Floats);
  const Floats zero = rows.scratch.zero_point[row] * load(rows.layer.weight_sum + column);
  finish(rows, row, column, (dot - zero) * rows.scratch.scale[row]);
}

template <int kRows, typename Sums>
void finish_tile(const Rows& rows, int64_t row, int64_t column, const Sums& sums) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) finish(rows, row + r, column + v * kLanes, sums[r][v]);
  }
}

// `ahead` is what lies that many bytes further in the weights and is fetched meanwhile: the next
// panel for the first tile of each, since the caches hold the weights of a layer at most.
template <int kRows, bool kDeep>
void multiply_bytes(const Rows& rows, int64_t row, int64_t column, int64_t ahead) {
  const int64_t inputs = rows.quantised_stride;
  const int8_t* panel = static_cast<const int8_t*>(rows.layer.panels) + column * inputs;
  const uint8_t* x = rows.scratch.quantised + row * inputs;
  Ints dots[kRows][kVectors] = {};
  for (int64_t i = 0; i < inputs; i += kStep, panel += kStep * kColumns) {
#pragma GCC unroll 8
    for (int64_t line = 0; line < kStep * kColumns; line += kLine) {
      __builtin_prefetch(panel + ahead + line, 0, 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        dots[r][v] = add_dots<kDeep>(dots[r][v], x + r * inputs + i, panel + v * kVectorBytes,
                                     kVectors * kVectorBytes);
      }
    }
  }
  finish_tile<kRows>(rows, row, column, dots);
}

template <int kRows>
void multiply_floats(const Rows& rows, int64_t row, int64_t column, int64_t ahead) {
  const int64_t inputs = rows.layer.inputs;
  const float* panel = static_cast<const float*>(rows.layer.panels) + column * inputs;
  const float* x = rows.x + row * inputs;
  Floats dots[kRows][kVectors] = {};
  for (int64_t i = 0; i < inputs; ++i, panel += kColumns) {
    __builtin_prefetch(reinterpret_cast<const char*>(panel) + ahead, 0, 2);
    Floats weights[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) weights[v] = load(panel + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float value = x[r * inputs + i];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) dots[r][v] += value * weights[v];
    }
  }
  finish_tile<kRows>(rows, row, column, dots);
}

#if defined(CRISP_AMX_INT8)
// Whether a layer goes by AMX: else by VNNI, with the same result.
bool has_tiles(const Rows& rows) {
  return rows.layer.quantised && rows.quantised_stride % kTileBytes == 0;
}

void multiply_tiles(const Rows& rows) {
  const int64_t count = rows.count;
  const int64_t inputs = rows.quantised_stride;
  const int8_t* const panels = static_cast<const int8_t*>(rows.layer.panels);
  const Tiles tiles(count);
  PanelSums sums[2];  // of the panel that is multiplied, and of the one before it
  const auto finish_rows = [&](int64_t begin, int64_t end, int64_t column, const PanelSums& of) {
    for (int64_t row = begin; row < end; ++row) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < kVectors; ++v) {
        Ints sum = load_ints(of.sum[row] + v * kLanes);
        if (tiles.has_two_chains()) sum += load_ints(of.sum[row + kTileRows] + v * kLanes);
        finish(rows, row, column + v * kLanes, sum);
      }
    }
  };
  int64_t column = rows.begin;
  for (int turn = 0; column < rows.end; column += kColumns, turn ^= 1) {
    const bool is_last = column + kColumns >= rows.end;
    const int64_t ahead = is_last ? 0 : kColumns * inputs;
    tiles.multiply(rows.scratch.quantised, inputs, panels + column * inputs, ahead, sums[turn],
                   [&](int64_t step, int64_t steps) {
                     if (column == rows.begin) return;
                     finish_rows(count * step / steps, count * (step + 1) / steps,
                                 column - kColumns, sums[turn ^ 1]);
                   });
    if (is_last) finish_rows(0, count, column, sums[turn]);
  }
}
#endif

// Either of the two, for a number of rows that is known at run time only.
template <int kRows = kRowTile>
void multiply_tile(int64_t count, const Rows& rows, int64_t row, int64_t column, int64_t ahead) {
  if constexpr (kRows > 1) {
    if (count < kRows) return multiply_tile<kRows - 1>(count, rows, row, column, ahead);
  }
  const LinearWeights& layer = rows.layer;
  if (!layer.quantised) return multiply_floats<kRows>(rows, row, column, ahead);
  if (kHasDepth && !layer.deep[column / kColumns]) {
    return multiply_bytes<kRows, false>(rows, row, column, ahead);
  }
  multiply_bytes<kRows, true>(rows, row, column, ahead);
}

void quantise(const LinearWeights& layer, const float* x, int64_t begin, int64_t end,
              const RowScratch& scratch) {
  if (!layer.quantised) return;
  const int64_t stride = round_up(layer.inputs, kStep);
  for (int64_t row = begin; row < end; ++row) {
    quantise_row(x + row * layer.inputs, layer.inputs, scratch.quantised + row * stride,
                 scratch.scale + row, scratch.zero_point + row);
  }
}

void multiply(const LinearWeights& layer, const float* x, int64_t count, Activation activation,
              float* y, int64_t begin, int64_t end, const RowScratch& scratch) {
  const Rows rows = {
      layer, x, count, activation, y, begin, end, scratch, round_up(layer.inputs, kStep)};
#if defined(CRISP_AMX_INT8)
  if (has_tiles(rows)) return multiply_tiles(rows);
#endif
  // Tiles of like size: 13 rows are 5 + 4 + 4 rather than 6 + 6 + 1.
  const int64_t tiles = (count + kRowTile - 1) / kRowTile;
  const int64_t panel_bytes =
      kColumns * (layer.quantised ? rows.quantised_stride : layer.inputs * int64_t{sizeof(float)});
  for (int64_t column = begin; column < end; column += kColumns) {
    const bool is_last = column + kColumns >= end;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = count * tile / tiles;
      const int64_t past = count * (tile + 1) / tiles;
      multiply_tile(past - first, rows, first, column, tile == 0 && !is_last ? panel_bytes : 0);
    }
  }
}

void add_and_norm(const float* first, const float* second, int64_t rows, int64_t width,
                  const NormWeights& norm, float* y) {
  for (int64_t i = 0; i < rows * width; ++i) y[i] = first[i] + second[i];
  for (int64_t row = 0; row < rows; ++row) norm_row(y + row * width, width, norm);
}

void embed(const EmbeddingRow& word, const EmbeddingRow& position, int64_t width,
           const NormWeights& norm, float* y) {
  for (int64_t i = 0; i < width; ++i) y[i] = 0;
  const EmbeddingRow* const rows[] = {&word, &position};
  for (const EmbeddingRow* row : rows) {
    if (row->bytes != nullptr) {
      for (int64_t i = 0; i < width; ++i) y[i] += row->bytes[i] * row->scale;
    } else {
      for (int64_t i = 0; i < width; ++i) y[i] += row->floats[i] * row->scale;
    }
  }
  norm_row(y, width, norm);
}

}  // namespace

extern const RowKernel kRowKernel = {kColumns, kTaskRows, quantise, multiply, add_and_norm, embed};

}  // namespace CRISP_ISA
}  // namespace crisp
