#include "rows.h"

#include <algorithm>
#include <cmath>

namespace linears {
namespace {

constexpr int64_t kPiece = 4096;  // floats that a thread takes at a time where there are no rows

float largest_magnitude(const float* x, int64_t count) {
  float largest = 0.0f;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

ByteScale scale_for(float largest) { return {largest > 0.0f ? largest / 127.0f : 1.0f, 128}; }

void quantize(const float* x, int64_t count, ByteScale scale, uint8_t* bytes) {
  const float factor = 1.0f / scale.scale, zero = static_cast<float>(scale.zero);
  for (int64_t i = 0; i < count; ++i) {
    const float value = std::min(std::max(x[i] * factor + zero, 0.0f), 255.0f);
    bytes[i] = static_cast<uint8_t>(static_cast<int32_t>(std::rint(value)));
  }
}

void normalize(const float* x, int64_t count, const float* gamma, const float* beta, float* out) {
  float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t n = 0; n < count; ++n) sum += x[n];
  const float mean = sum / static_cast<float>(count);
#pragma omp simd reduction(+ : squares)
  for (int64_t n = 0; n < count; ++n) squares += (x[n] - mean) * (x[n] - mean);
  const float factor = 1.0f / std::sqrt(squares / static_cast<float>(count) + 1e-12f);
  for (int64_t n = 0; n < count; ++n) out[n] = (x[n] - mean) * factor * gamma[n] + beta[n];
}

// erf GELU, erf by Abramowitz and Stegun 7.1.26: within 1.5e-7.
float gelu(float x) {
  const float z = std::fabs(x) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  const float series =
      t * (0.254829592f +
           t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
  const float erf = std::copysign(1.0f - series * std::exp(-z * z), x);
  return 0.5f * x * (1.0f + erf);
}

}  // namespace

void quantize_rows(const float* x, int64_t rows, int64_t columns, uint8_t* bytes, float* scales) {
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < rows; ++m) {
    const ByteScale scale = scale_for(largest_magnitude(x + m * columns, columns));
    quantize(x + m * columns, columns, scale, bytes + m * columns);
    scales[m] = scale.scale;
  }
}

void quantize_all(const float* x, int64_t count, ByteScale scale, uint8_t* bytes) {
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    quantize(x + begin, std::min(kPiece, count - begin), scale, bytes + begin);
  }
}

ByteScale quantize_tensor(const float* x, int64_t count, uint8_t* bytes) {
  float largest = 0.0f;
#pragma omp parallel for schedule(static) reduction(max : largest)
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    largest = std::max(largest, largest_magnitude(x + begin, std::min(kPiece, count - begin)));
  }
  const ByteScale scale = scale_for(largest);
  quantize_all(x, count, scale, bytes);
  return scale;
}

void scale_rows(float* x, int64_t rows, int64_t columns, const float* scales, const float* bias) {
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < rows; ++m) {
    float* row = x + m * columns;
    for (int64_t n = 0; n < columns; ++n) row[n] = scales[m] * row[n] + bias[n];
  }
}

void scale_rows_gelu(float* x, int64_t rows, int64_t columns, float* scales, const float* bias,
                     uint8_t* bytes) {
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < rows; ++m) {
    float* row = x + m * columns;
    const float scale = scales[m];
    for (int64_t n = 0; n < columns; ++n) row[n] = gelu(scale * row[n] + bias[n]);
    if (bytes == nullptr) continue;
    const ByteScale out = scale_for(largest_magnitude(row, columns));
    quantize(row, columns, out, bytes + m * columns);
    scales[m] = out.scale;
  }
}

void layer_norm(const float* x, int64_t rows, int64_t columns, const float* gamma,
                const float* beta, float* out, ByteScale scale, uint8_t* bytes) {
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < rows; ++m) {
    normalize(x + m * columns, columns, gamma, beta, out + m * columns);
    if (bytes != nullptr) quantize(out + m * columns, columns, scale, bytes + m * columns);
  }
}

void scale_rows_layer_norm(float* x, int64_t rows, int64_t columns, const float* scales,
                           const float* bias, const float* residual, const float* gamma,
                           const float* beta, float* out) {
#pragma omp parallel for schedule(static)
  for (int64_t m = 0; m < rows; ++m) {
    float* row = x + m * columns;
    const float* added = residual + m * columns;
    for (int64_t n = 0; n < columns; ++n) row[n] = scales[m] * row[n] + bias[n] + added[n];
    normalize(row, columns, gamma, beta, out + m * columns);
  }
}

}  // namespace linears
