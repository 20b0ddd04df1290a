// The threshold of exact top-k, by search rather than by sorting. Part of kernel.cc: compiled once
// for each instruction set, private to each.
#pragma once

#include <stdint.h>

#include "kernel.h"
#include "kernel_vectors.h"

namespace crisp {
namespace CRISP_ISA {
namespace {

// Floats that are not NaN, in order, as integers: steps of one are neighbouring floats.
int64_t rank_of(float value) {
  int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits < 0 ? bits ^ INT32_MAX : bits;
}

float value_at(int64_t rank) {
  const int32_t narrow = static_cast<int32_t>(rank);
  const int32_t bits = narrow < 0 ? narrow ^ INT32_MAX : narrow;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

int64_t count_at_least(const float* scores, int64_t columns, float threshold) {
  Ints count = {};
  for (int64_t column = 0; column < columns; column += kLanes) {
    count -= load(scores + column) >= threshold;  // a true lane is -1
  }
  return sum_of(count);
}

// A threshold that exactly the kept ones of `length` scores reach: the k-th highest or, where
// nothing ties with it, anything between it and the next lower one. The scores are padded with -inf
// to whole panels. Where one is NaN, the threshold means nothing.
//
// Narrows a bracket [low, high) of ranks, in which at least k scores reach `low` and fewer than k
// reach `high`, until the count is k or the bracket holds one float. Guesses by interpolating the
// counts; each third guess halves the bracket, which bounds the number of guesses by 3 x 32.
float topk_threshold(const float* scores, int64_t length, const QueryRows& rows, float highest) {
  const int64_t columns = round_up(length, kLanes);
  Floats sum = {};
  Floats squares = {};
  Floats lowest = all(kInfinity);
  const Ints lanes = lane_numbers();
  for (int64_t column = 0; column < columns; column += kLanes) {
    const Floats score = load(scores + column);
    const Ints exists = lanes < static_cast<int32_t>(length - column);
    const Floats deviation = exists ? score - highest : Floats{};  // keeps the squares small
    sum += deviation;
    squares += deviation * deviation;
    lowest = exists & (score < lowest) ? score : lowest;
  }
  const float mean = sum_of(sum) / static_cast<float>(length);
  const float variance = sum_of(squares) / static_cast<float>(length) - mean * mean;
  float guess =
      highest + mean + rows.kept_deviations * __builtin_sqrtf(variance > 0 ? variance : 0);

  int64_t low = rank_of(-maximum_of(-lowest));
  int64_t high = rank_of(highest) + 1;
  int64_t count_low = length;
  int64_t count_high = 0;
  for (int round = 0; high - low > 1; ++round) {
    const bool interpolate = round % 3 != 2 && guess - guess == 0.0f;
    int64_t middle = interpolate ? rank_of(guess) : low + (high - low) / 2;
    middle = middle <= low ? low + 1 : middle >= high ? high - 1 : middle;
    const float threshold = value_at(middle);
    const int64_t count = count_at_least(scores, columns, threshold);
    if (count == rows.kept) return threshold;
    if (count > rows.kept) {
      low = middle;
      count_low = count;
    } else {
      high = middle;
      count_high = count;
    }
    const float part =
        static_cast<float>(count_low - rows.kept) / static_cast<float>(count_low - count_high);
    guess = value_at(low) + part * (value_at(high) - value_at(low));
  }
  return value_at(low);
}

}  // namespace
}  // namespace CRISP_ISA
}  // namespace crisp
