// What stands between the products and works row by row: dynamic quantisation and LayerNorm.
//
// Plain loops that the compiler vectorises; rows are shared out by OpenMP. Matrices are row-major.
#pragma once

#include <cstdint>

namespace linears {

// A float x stands as the byte round(x / scale) + zero, cut off at 0 and 255.
struct ByteScale {
  float scale;
  int32_t zero;
};

// Quantises each row by its own largest magnitude: `bytes[m, n]` = round(x / scales[m]) + 128,
// so that the row uses 1 ... 255. A row of zeros gets the scale 1.
void quantize_rows(const float* x, int64_t rows, int64_t columns, uint8_t* bytes, float* scales);

// Quantises everything by its largest magnitude, to 1 ... 255 around 128; returns that scale.
ByteScale quantize_tensor(const float* x, int64_t count, uint8_t* bytes);

// Quantises everything by one given scale.
void quantize_all(const float* x, int64_t count, ByteScale scale, uint8_t* bytes);

// Behind a product of rows with a scale each: y = scales[m] * x + bias, in place.
void scale_rows(float* x, int64_t rows, int64_t columns, const float* scales, const float* bias);

// The same, then erf GELU, in place; and quantised row by row unless `bytes` is null, in which case
// `scales` becomes that of the bytes.
void scale_rows_gelu(float* x, int64_t rows, int64_t columns, float* scales, const float* bias,
                     uint8_t* bytes);

// LayerNorm of each row, with epsilon 1e-12, into `out`; and quantised by `scale` into `bytes` in
// the same pass, unless that is null.
void layer_norm(const float* x, int64_t rows, int64_t columns, const float* gamma,
                const float* beta, float* out, ByteScale scale, uint8_t* bytes);

// LayerNorm(scales[m] * x + bias + residual): what is left to do behind a product of rows with a
// scale each. `x` is overwritten.
void scale_rows_layer_norm(float* x, int64_t rows, int64_t columns, const float* scales,
                           const float* bias, const float* residual, const float* gamma,
                           const float* beta, float* out);

}  // namespace linears
