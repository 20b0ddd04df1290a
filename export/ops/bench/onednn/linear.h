// One linear layer, y = post(x W + b), as a oneDNN primitive.
//
// As a `matmul`, or as a 1 x 1 `conv`, which has kernels of its own on processors without VNNI: the
// rows are then the pixels of one image in channels-last layout, the same bytes in memory.
#pragma once

#include <cstdint>
#include <dnnl.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "rows.h"

namespace linears {

enum class Backend { kMatmul, kConvolution };

// fp32; or u8 rows by s8 columns, where the scale of the rows is a constant found by calibration
// (static), or found on every run, one for all rows (tensor) or one for each (rows).
enum class Precision { kFloat32, kStatic, kTensor, kRows };

struct LinearShape {
  int64_t rows, inner, columns;  // [rows, inner] x [inner, columns]
  bool gelu = false;             // erf GELU behind the bias
  bool residual = false;         // adds an fp32 [rows, columns] behind that
  bool byte_output = false;      // requantises to u8; else the output is fp32
  int weight_steps = 127;        // weights become -steps ... steps; up to 64 no sum can saturate
};

class Linear {
 public:
  // `weight` [inner, columns] and `bias` [columns] are fp32 and quantised here: symmetric, a scale
  // a column. `input` is the scale of the rows if static; zero is 128 if found on every run.
  //
  // oneDNN 3.2 has no fast path for a scale a row. There the output is x W / scale of the row,
  // fp32, without bias and the rest of `shape`: rows.h does those in one pass.
  Linear(Backend backend, Precision precision, LinearShape shape, const std::vector<float>& weight,
         const std::vector<float>& bias, ByteScale input, ByteScale output);

  // `input_scale` counts only where it is found on every run for all rows; `residual` only where
  // there is one.
  void run(const void* input, float input_scale, const float* residual, void* output);

  std::string implementation() const { return implementation_; }

 private:
  dnnl::memory::desc rows_desc(int64_t width, dnnl::memory::data_type type) const;
  dnnl::memory owned(const std::vector<float>& values, const dnnl::memory::desc& desc);
  template <typename Primitive>
  void build(const std::vector<float>& weight);
  void set_input_scale(float scale);

  Backend backend_;
  Precision precision_;
  LinearShape shape_;
  ByteScale input_, output_;
  std::vector<float> bias_, zero_products_;  // [columns]; the latter at input scale 1
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::primitive primitive_;
  std::string implementation_;
  std::unordered_map<int, dnnl::memory> arguments_;
  int residual_argument_ = -1;
};

}  // namespace linears
