// Keys, values and pooled keys of one sequence and head, laid out for the kernel. Part of
// kernel.cc: compiled once for each instruction set, private to each.
#pragma once

#include <stdint.h>

#include "kernel.h"
#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

// Rows are so far apart that the processor foresees none of them.
constexpr int64_t kRowsAhead = 16;

void prefetch_row(const float* row, int64_t head_size) {
  constexpr int64_t kCacheLine = 16;  // floats
  for (int64_t d = 0; d < head_size; d += kCacheLine) __builtin_prefetch(row + d);
}

// Rows [rows][head_size], `stride` floats apart, into panels [panels][head_size][kPanel], with
// zeros past the last row.
void pack_panels(const float* from, int64_t stride, int64_t rows, int64_t head_size, float* to) {
  for (int64_t first = 0; first < round_up(rows, kPanel); first += kLanes) {
    float* columns = to + first / kPanel * kPanel * head_size + first % kPanel;
    for (int64_t row = first + kRowsAhead; row < first + kRowsAhead + kLanes && row < rows; ++row) {
      prefetch_row(from + row * stride, head_size);
    }
    int64_t d = 0;
    for (; d + kLanes <= head_size; d += kLanes) {
      Floats square[kLanes];
#pragma GCC unroll 16
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        square[lane] = first + lane < rows ? load(from + (first + lane) * stride + d) : Floats{};
      }
      transpose(square);
#pragma GCC unroll 16
      for (int64_t lane = 0; lane < kLanes; ++lane)
        store(columns + (d + lane) * kPanel, square[lane]);
    }
    for (; d < head_size; ++d) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        columns[d * kPanel + lane] = first + lane < rows ? from[(first + lane) * stride + d] : 0.0f;
      }
    }
  }
}

// Rows [rows][head_size], `stride` floats apart, into rows [rows rounded up][to_stride], padded
// with zeros on both sides. Returns whether all are finite.
bool pack_rows(const float* from, int64_t stride, int64_t rows, int64_t head_size, float* to,
               int64_t to_stride) {
  Ints strange_lanes = {};
  bool strange = false;
  const int64_t whole = head_size / kLanes * kLanes;
  for (int64_t row = 0; row < rows; ++row, from += stride, to += to_stride) {
    if (row + kRowsAhead < rows) prefetch_row(from + kRowsAhead * stride, head_size);
    for (int64_t d = 0; d < whole; d += kLanes) {
      const Floats value = load(from + d);
      strange_lanes |= value - value != 0.0f;
      store(to + d, value);
    }
    for (int64_t d = whole; d < head_size; ++d) {
      to[d] = from[d];
      strange |= from[d] - from[d] != 0.0f;
    }
    for (int64_t d = head_size; d < to_stride; ++d) to[d] = 0.0f;
  }
  const int64_t fill = (round_up(rows, kPanel) - rows) * to_stride;
  for (int64_t i = 0; i < fill; ++i) to[i] = 0.0f;
  return !strange && sum_of(strange_lanes) == 0;
}

// The mean of `rows` rows [head_size], `stride` floats apart.
void mean_of_rows(const float* from, int64_t stride, int64_t rows, int64_t head_size, float* mean) {
  const float count = static_cast<float>(rows);
  int64_t d = 0;
  for (; d + kLanes <= head_size; d += kLanes) {
    Floats sum = {};
    for (int64_t row = 0; row < rows; ++row) {
      if (d == 0 && row + kRowsAhead < rows) {
        prefetch_row(from + (row + kRowsAhead) * stride, head_size);
      }
      sum += load(from + row * stride + d);
    }
    store(mean + d, sum / count);
  }
  for (; d < head_size; ++d) {
    float sum = 0;
    for (int64_t row = 0; row < rows; ++row) sum += from[row * stride + d];
    mean[d] = sum / count;
  }
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
