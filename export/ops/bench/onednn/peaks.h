// The arithmetic limits of one core with AVX2: the loops of a matrix product with nothing but
// registers in them.
#pragma once

#include <cstdint>

namespace linears {

enum class Peak {
  kFloat32,  // vfmadd231ps: 8 products a step
  kInt8,     // vpmaddubsw, vpmaddwd, vpaddd: 32 products a step, pairs saturating at 16 bits
  kInt16,    // vpmaddwd, vpaddd: 16 products a step, exact
};

// Runs the loop `rounds` times; returns the number of operations done, two a product.
double run_peak(Peak peak, int64_t rounds);

}  // namespace linears
