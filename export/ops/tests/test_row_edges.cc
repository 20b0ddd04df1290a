// The row operators at their edges: threads that share rows, rows of strange numbers, layers that
// are refused.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "isa.h"
#include "layers.h"

namespace crisp {
namespace {

// Every task on a thread of its own; some come late, and find work left or none.
const ParallelFor kThreads = [](size_t tasks, const std::function<void(size_t)>& task) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < tasks; ++i) {
    threads.emplace_back([&task, i] {
      std::this_thread::sleep_for(std::chrono::microseconds(i * 30));
      task(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
};

TEST_CASE("threads that share few rows compute what one computes, to the last bit") {
  std::mt19937 random(6);
  const int64_t hidden = 128;
  const int64_t inner = 1024;
  const PostAttentionLayers layers = random_post_attention(random, hidden, inner);
  const FloatRows context = random_rows(random, 33 * hidden);
  for (const NamedKernel& one : row_kernels()) {
    for (const bool quantised : {false, true}) {
      const PostAttentionWeights weights = layers.packed(*one.kernel, quantised);
      for (const int64_t rows : {1, 2, 13, 32, 33}) {
        CAPTURE(one.name);
        CAPTURE(rows);
        const auto run = [&](const ParallelFor& parallel_for, int64_t threads) {
          FloatRows found(4 * rows * hidden);
          post_attention(*one.kernel, weights, context.data(), context.data(), rows, found.data(),
                         found.data() + rows * hidden, parallel_for, threads);
          return found;
        };
        const FloatRows expected = run(kOneAfterTheOther, 1);
        for (const int64_t threads : {1, 2, 3, 4, 9}) {
          CAPTURE(threads);
          CHECK(run(kOneAfterTheOther, threads) == expected);
          for (int turn = 0; turn < 2; ++turn) CHECK(run(kThreads, threads) == expected);
        }
      }
    }
  }
}

TEST_CASE("rows are cut for the threads that there are") {
  std::mt19937 random(8);
  const Layer layer = random_layer(random, 20, 40);
  const FloatRows x = random_rows(random, 12 * 20);
  FloatRows y(12 * 40);
  for (const NamedKernel& one : row_kernels()) {
    const std::unique_ptr<PackedLinear> packed = layer.packed(*one.kernel, true);
    const auto tasks_for = [&](int64_t threads) {
      size_t found = 1;  // the caller's own, where it asks for no other
      const ParallelFor count = [&](size_t tasks, const std::function<void(size_t)>& task) {
        found = tasks;
        kOneAfterTheOther(tasks, task);
      };
      linear(*one.kernel, *packed, x.data(), 12, y.data(), count, threads);
      return found;
    };
    CHECK(tasks_for(1) == 1);
    CHECK(tasks_for(2) == 2);
    CHECK(tasks_for(100) == 2);  // six rows are the fewest of a task
  }
}

TEST_CASE("a row that is not finite stays alone; one of zeros is the bias") {
  std::mt19937 random(5);
  const Layer layer = random_layer(random, 21, 40);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const NamedKernel& one : row_kernels()) {
    for (const bool quantised : {false, true}) {
      CAPTURE(one.name);
      CAPTURE(quantised);
      FloatRows x = random_rows(random, 9 * 21);
      std::fill_n(x.begin() + 3 * 21, 21, 0.0f);
      const FloatRows good = run_linear(*one.kernel, layer, x, 9, quantised);
      CHECK(std::equal(layer.bias.begin(), layer.bias.end(), good.begin() + 3 * 40));
      for (const float bad : {std::nanf(""), infinity, -infinity}) {
        for (const int64_t at : {0, 20}) {
          FloatRows spoilt = x;
          spoilt[5 * 21 + at] = bad;
          const FloatRows found = run_linear(*one.kernel, layer, spoilt, 9, quantised);
          for (int64_t i = 0; i < 9 * 40; ++i) {
            if (i / 40 == 5) {
              CHECK(!std::isfinite(found[i]));
            } else {
              CHECK(found[i] == good[i]);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("weights beyond seven bits are refused") {
  const float one = 1;
  for (const int8_t weight : {int8_t{65}, int8_t{-65}, int8_t{-128}}) {
    CHECK_THROWS_AS(PackedLinear(row_kernel_for(Isa::kBaseline), &weight, &one, &one, 1, 1),
                    std::invalid_argument);
  }
}

TEST_CASE("layers without inputs or outputs are refused") {
  const float one = 1;
  const int8_t byte = 1;
  const RowKernel& kernel = row_kernel_for(Isa::kBaseline);
  for (const auto& [inputs, outputs] : {std::pair{0, 4}, {4, 0}, {0, 0}}) {
    CHECK_THROWS_WITH_AS(PackedLinear(kernel, &one, &one, &one, inputs, outputs),
                         doctest::Contains("must have inputs and outputs"), std::invalid_argument);
    CHECK_THROWS_WITH_AS(PackedLinear(kernel, &byte, &one, &one, inputs, outputs),
                         doctest::Contains("must have inputs and outputs"), std::invalid_argument);
  }
}

TEST_CASE("a row of numbers too small for levels between them is the bias") {
  std::mt19937 random(9);
  Layer layer = random_layer(random, 37, 40);
  std::fill(layer.scale.begin(), layer.scale.end(), 1e37f);  // whatever came out would show
  for (const NamedKernel& one : row_kernels()) {
    CAPTURE(one.name);
    for (const float size : {1e-45f, 1e-42f, 1e-39f, 1e-38f, 3e-37f}) {
      CAPTURE(size);
      FloatRows x(37);
      for (int i = 0; i < 37; ++i) x[i] = i % 3 == 0 ? -size : i % 3 == 1 ? size : 0.0f;
      CHECK(run_linear(*one.kernel, layer, x, 1, true) == layer.bias);
    }
  }
}

TEST_CASE("a row just above that is a row like any other") {
  std::mt19937 random(10);
  Layer layer = random_layer(random, 37, 40);
  const FloatRows normal = random_rows(random, 37);
  FloatRows tiny = normal;
  const float size = 0x1p-117f;  // 6e-36, and a power of two: nothing is rounded another way
  for (float& value : tiny) value *= size;
  Layer large = layer;
  std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
  large.bias = layer.bias;
  for (float& value : large.scale) value /= size;
  for (const NamedKernel& one : row_kernels()) {
    CAPTURE(one.name);
    CHECK(run_linear(*one.kernel, large, tiny, 1, true) ==
          run_linear(*one.kernel, layer, normal, 1, true));
  }
}

}  // namespace
}  // namespace crisp
