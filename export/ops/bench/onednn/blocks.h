// What is timed: one linear layer, or a feed-forward block, of MiniLM's shapes on random data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "linear.h"

namespace linears {

struct Case {
  Backend backend;
  Precision precision;
  int weight_steps;   // see LinearShape
  std::string block;  // qkv, out, ffn1, ffn2 or ffn
  int64_t rows;
  int threads;
};

class Block {
 public:
  virtual ~Block() = default;
  virtual void run() = 0;
  // Relative to the fp32 result by plain loops: root of (sum of squared differences / sum of
  // squares), over a few rows.
  virtual double error() = 0;
  virtual std::string implementation() const = 0;
  virtual double operations() const = 0;  // of the products: two for each
};

// Throws dnnl::error, or std::invalid_argument if there is no such block.
std::unique_ptr<Block> make_block(const Case& what);

}  // namespace linears
