// What the row operators (rows.h) do beside their matrix products, a token at a time: sums and
// LayerNorm in float, whatever the tensors hold.
#pragma once

#include <math.h>

#include "half.h"
#include "segments.h"

namespace crisp {
namespace cuda {

// y = activation(x · scale + bias), in place: x [rows, width].
struct ScaleBiasArguments {
  void* x;
  const float* scale;  // [width]
  const float* bias;   // [width]
  int64_t elements;
  int32_t width;
  bool gelu;
};

template <class T>
struct ScaleBias {
  static constexpr int kThreads = 256;
  static constexpr int kElementsOfBlock = 4 * kThreads;
  using Arguments = ScaleBiasArguments;
  struct Registers {};

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    block.each_thread([&](int thread, Registers&) {
      const int64_t first = static_cast<int64_t>(block.unit()) * kElementsOfBlock + thread;
      CRISP_UNROLL
      for (int i = 0; i < kElementsOfBlock; i += kThreads) {
        const int64_t at = first + i;
        if (at >= arguments.elements) continue;
        T& element = static_cast<T*>(arguments.x)[at];
        const int column = static_cast<int>(at % arguments.width);
        const float x = to_float(element) * arguments.scale[column] + arguments.bias[column];
        element = from_float<T>(arguments.gelu ? gelu(x) : x);
      }
    });
  }

 private:
  CRISP_HD static float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.707106781186547524f));
  }
};

constexpr int kRowsOfBlock = 4;  // a warp for each

// LayerNorm of rows that lie in shared memory [kRowsOfBlock][width].
struct NormWeightsOnDevice {
  const float* gamma;
  const float* beta;
  float epsilon;
};

struct NormShared {
  float of_lane[2][kRowsOfBlock][kWarp];

  CRISP_HD float sum(int which, int row) const {
    float result = 0.0f;
    for (int lane = 0; lane < kWarp; ++lane) result += of_lane[which][row][lane];
    return result;
  }
};

// The rows of a block through LayerNorm: value(row, column) in, `y` out.
template <class Registers, class T, class Block, class Value>
CRISP_HD void normalise_rows(Block& block, const NormWeightsOnDevice& norm, int rows, int width,
                             T* y, const Value& value) {
  NormShared& shared = *reinterpret_cast<NormShared*>(block.shared());
  float* const values = reinterpret_cast<float*>(block.shared() + sizeof(NormShared));
  block.each_thread([&](int thread, Registers&) {
    const int row = thread / kWarp;
    if (row >= rows) return;
    float sum = 0.0f;
    for (int i = thread % kWarp; i < width; i += kWarp) {
      const float x = value(row, i);
      values[row * width + i] = x;
      sum += x;
    }
    shared.of_lane[0][row][thread % kWarp] = sum;
  });
  block.each_thread([&](int thread, Registers&) {
    const int row = thread / kWarp;
    if (row >= rows) return;
    const float mean = shared.sum(0, row) / static_cast<float>(width);
    float squares = 0.0f;
    for (int i = thread % kWarp; i < width; i += kWarp) {
      const float centred = values[row * width + i] - mean;
      values[row * width + i] = centred;
      squares += centred * centred;
    }
    shared.of_lane[1][row][thread % kWarp] = squares;
  });
  block.each_thread([&](int thread, Registers&) {
    const int row = thread / kWarp;
    if (row >= rows) return;
    const float variance = shared.sum(1, row) / static_cast<float>(width);
    const float inverse = 1.0f / sqrtf(variance + norm.epsilon);
    for (int i = thread % kWarp; i < width; i += kWarp) {
      const float normal = values[row * width + i] * inverse;
      y[static_cast<int64_t>(row) * width + i] =
          from_float<T>(normal * norm.gamma[i] + norm.beta[i]);
    }
  });
}

inline size_t norm_shared_bytes(int64_t width) {
  return sizeof(NormShared) + sizeof(float) * static_cast<size_t>(kRowsOfBlock * width);
}

// y = LayerNorm(x · scale + bias + residual), all [rows, width].
struct AddAndNormArguments {
  const void* x;
  const float* scale;
  const float* bias;
  const void* residual;
  void* y;
  NormWeightsOnDevice norm;
  int64_t rows;
  int32_t width;
};

template <class T>
struct AddAndNorm {
  static constexpr int kThreads = kRowsOfBlock * kWarp;
  using Arguments = AddAndNormArguments;
  struct Registers {};

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    const int64_t first = static_cast<int64_t>(block.unit()) * kRowsOfBlock;
    const int64_t left = arguments.rows - first;
    const int64_t at = first * arguments.width;
    const T* const x = static_cast<const T*>(arguments.x) + at;
    const T* const residual = static_cast<const T*>(arguments.residual) + at;
    normalise_rows<Registers>(
        block, arguments.norm, left < kRowsOfBlock ? static_cast<int>(left) : kRowsOfBlock,
        arguments.width, static_cast<T*>(arguments.y) + at, [&](int row, int i) {
          const int64_t from = static_cast<int64_t>(row) * arguments.width + i;
          return to_float(x[from]) * arguments.scale[i] + arguments.bias[i] +
                 to_float(residual[from]);
        });
  }
};

// hidden [T, width] = LayerNorm(word + position), each table [count, width] with a scale for each
// row. An id outside the words gives a row of NaN: the host cannot look at what lies on the device.
struct EmbedArguments {
  Table<Segment> table;  // a unit is kRowsOfBlock tokens of a sequence
  const int64_t* input_ids;
  const void* words;
  const float* word_scale;
  const void* positions;
  const float* position_scale;
  void* hidden;
  NormWeightsOnDevice norm;
  int64_t word_count;
  int32_t width;
};

template <class T>
struct Embed {
  static constexpr int kThreads = kRowsOfBlock * kWarp;
  using Arguments = EmbedArguments;
  struct Registers {};

  template <class Block>
  CRISP_HD static void run(const Arguments& arguments, Block& block) {
    const Segment& segment = arguments.table.of(block.unit());
    const int first = (block.unit() - segment.first_unit) * kRowsOfBlock;
    const int64_t token = segment.first_token + first;
    const T* const words = static_cast<const T*>(arguments.words);
    const T* const positions = static_cast<const T*>(arguments.positions);
    normalise_rows<Registers>(
        block, arguments.norm, least(kRowsOfBlock, segment.length - first), arguments.width,
        static_cast<T*>(arguments.hidden) + token * arguments.width, [&](int row, int i) {
          const int64_t id = arguments.input_ids[token + row];
          const int64_t position = first + row;
          if (id < 0 || id >= arguments.word_count) return static_cast<float>(NAN);
          return to_float(words[id * arguments.width + i]) * arguments.word_scale[id] +
                 to_float(positions[position * arguments.width + i]) *
                     arguments.position_scale[position];
        });
  }
};

}  // namespace cuda
}  // namespace crisp
