// As many floats at once as the processor takes, memory that suits them, eˣ and the k-th highest of
// each lane.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>

namespace fused {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kLine = 16;  // floats of a cache line

// A vector is what one register holds (wider ones are computed through memory, several times
// slower), and a tile of a product has as many rows as leave registers for its factors.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kTileRows = 8;
#elif defined(__AVX__)
constexpr int kLanes = 8, kTileRows = 6;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kTileRows = 8;
#else
constexpr int kLanes = 4, kTileRows = 6;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
// In memory, from any address on. (In variables, it would make them cross cache lines.)
typedef float Anywhere __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Floats load(const float* from) { return *reinterpret_cast<const Anywhere*>(from); }
inline void store(float* to, Floats values) { *reinterpret_cast<Anywhere*>(to) = values; }

// `count` up to whole vectors.
template <class Count>
Count whole(Count count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

// `count` up to whole cache lines: what rows of a text's keys are apart.
template <class Count>
Count whole_lines(Count count) {
  return (count + kLine - 1) / kLine * kLine;
}

// Floats of any value, from the start of a cache line on: a vector that spans two takes twice as
// long to load.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t count) : lines_(new Line[whole_lines(count) / kLine]) {}
  float* data() { return lines_.get()->values; }
  const float* data() const { return lines_.get()->values; }

 private:
  struct alignas(4 * kLine) Line {
    float values[kLine];
  };
  std::unique_ptr<Line[]> lines_;
};

// eˣ for x ≤ 0, to 5e-7 of it with FMA, 8e-6 without: 2ⁿ times a polynomial in what is left of x.
inline Floats exponential(Floats x) {
  const Floats least = Floats{} - 87.0f;
  x = x < least ? least : x;
  const Ints n = __builtin_convertvector(x * 1.44269504f - 0.5f, Ints);
  const Floats whole = __builtin_convertvector(n, Floats);
  const Floats r = x - whole * 0.693147181f;
  Floats power = Floats{} + 1.0f / 5040;
  for (float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    power = power * r + factor;
  return power * (Floats)((n + 127) << 23);
}

// The k-th highest of each lane's n values, `sign` times them; -∞ where there are fewer.
inline Floats highest(const float* values, int64_t row, int n, int k, float sign, float* best) {
  std::fill_n(best, k * kLanes, -kInfinity);
  for (int j = 0; j < n; ++j) {
    Floats value = sign * load(values + j * row);
    for (int t = 0; t < k; ++t) {  // the higher one stays, the lower one sinks
      const Floats other = load(best + t * kLanes);
      store(best + t * kLanes, other > value ? other : value);
      value = other > value ? value : other;
    }
  }
  return load(best + (k - 1) * kLanes);
}

}  // namespace fused
