// The row operators: every kernel against plain loops, and the kernels against each other.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "doctest/doctest.h"
#include "isa.h"
#include "layers.h"

namespace crisp {
namespace {

TEST_CASE("linear is the plain product, around every width") {
  std::mt19937 random(1);
  for (const NamedKernel& one : row_kernels()) {
    CAPTURE(one.name);
    const int64_t columns = one.kernel->columns;
    for (const int64_t inputs : {int64_t{1}, int64_t{7}, int64_t{8}, int64_t{9}, int64_t{65}}) {
      for (const int64_t outputs : {int64_t{1}, columns - 1, columns, columns + 1, 3 * columns}) {
        const Layer layer = random_layer(random, inputs, outputs);
        for (const int64_t rows : {0, 1, 2, 5, 9, 70}) {
          const FloatRows x = random_rows(random, rows * inputs);
          const FloatRows floats = run_linear(*one.kernel, layer, x, rows, false);
          CHECK(largest_difference(floats, plain_linear(layer, x, rows, false)) < 2e-5);
          // A value between two steps may fall to either side: one step of one weight.
          const FloatRows bytes = run_linear(*one.kernel, layer, x, rows, true);
          CHECK(largest_difference(bytes, plain_linear(layer, x, rows, true)) < 8e-2);
        }
      }
    }
  }
}

TEST_CASE("sums of bytes are exact at their extremes") {
  // Integers from 0 to 127, so that the step is 1 and nothing is rounded.
  const int64_t inputs = 1536;
  std::mt19937 random(2);
  std::uniform_int_distribution<int> digit(0, 127);
  for (const NamedKernel& one : row_kernels()) {
    CAPTURE(one.name);
    Layer layer = random_layer(random, inputs, 50);
    std::fill(layer.scale.begin(), layer.scale.end(), 1.0f);
    std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
    for (int64_t i = 0; i < inputs; ++i) {
      layer.bytes[i * 50] = 64;
      layer.bytes[i * 50 + 1] = -64;
    }
    FloatRows x(2 * inputs, 127.0f);
    for (int64_t i = 1; i < inputs; ++i) x[inputs + i] = static_cast<float>(digit(random));
    const FloatRows found = run_linear(*one.kernel, layer, x, 2, true);
    for (int64_t row = 0; row < 2; ++row) {
      for (int64_t j = 0; j < 50; ++j) {
        int64_t sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          sum += static_cast<int64_t>(x[row * inputs + i]) * layer.bytes[i * 50 + j];
        }
        CHECK(found[row * 50 + j] == static_cast<float>(sum));
      }
    }
  }
}

TEST_CASE("whole tiles of bytes: exact for every number of rows, of steps and of outputs") {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> digit(0, 127);
  for (const int64_t inputs : {64, 128, 192, 320}) {
    for (const int64_t outputs : {3, 32, 41, 96}) {
      Layer layer = random_layer(random, inputs, outputs);
      std::fill(layer.scale.begin(), layer.scale.end(), 1.0f);
      std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
      for (const int64_t rows : {1, 2, 15, 16, 17, 31, 32, 33, 70}) {
        FloatRows x(rows * inputs);
        for (float& value : x) value = static_cast<float>(digit(random));
        for (int64_t row = 0; row < rows; ++row) x[row * inputs] = 127;  // so that the step is 1
        FloatRows expected;
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t j = 0; j < outputs; ++j) {
            int64_t sum = 0;
            for (int64_t i = 0; i < inputs; ++i) {
              sum += static_cast<int64_t>(x[row * inputs + i]) * layer.bytes[i * outputs + j];
            }
            expected.push_back(static_cast<float>(sum));
          }
        }
        for (const NamedKernel& one : row_kernels()) {
          CAPTURE(one.name);
          CAPTURE(inputs);
          CAPTURE(outputs);
          CAPTURE(rows);
          CHECK(run_linear(*one.kernel, layer, x, rows, true) == expected);
        }
      }
    }
  }
}

TEST_CASE("sums of bytes are exact where 16 bits just hold them, and where they just do not") {
  // Eight products share a sum of 16 bits: 127 · 258 = 32,766 fits, 127 · 259 does not. Panels have
  // different numbers of columns: each limit gets a layer of its own, and one has both.
  const std::vector<std::vector<int>> limits = {{258}, {259}, {-258}, {-259}, {258, -259, 258}};
  for (const NamedKernel& one : row_kernels()) {
    CAPTURE(one.name);
    for (const std::vector<int>& sums : limits) {
      const int64_t outputs = static_cast<int64_t>(sums.size()) * one.kernel->columns;
      Layer layer{32,
                  outputs,
                  std::vector<int8_t>(32 * outputs),
                  {},
                  FloatRows(outputs, 1.0f),
                  FloatRows(outputs)};
      for (size_t panel = 0; panel < sums.size(); ++panel) {
        int left = std::abs(sums[panel]);
        for (const int64_t input : {16, 17, 20, 21, 24, 25, 28, 29}) {
          const int weight = std::min(left, 64);
          left -= weight;
          layer.bytes[input * outputs + static_cast<int64_t>(panel) * one.kernel->columns + 3] =
              static_cast<int8_t>(sums[panel] < 0 ? -weight : weight);
        }
      }
      const FloatRows x(32, 127.0f);
      const FloatRows found = run_linear(*one.kernel, layer, x, 1, true);
      for (int64_t j = 0; j < outputs; ++j) {
        const int sum =
            j % one.kernel->columns == 3 ? sums[static_cast<size_t>(j / one.kernel->columns)] : 0;
        CHECK(found[j] == static_cast<float>(127 * sum));
      }
    }
  }
}

TEST_CASE("gelu is that of the error function") {
  const int64_t outputs = 4801;
  Layer layer{
      1, outputs, {}, FloatRows(outputs, 1.0f), FloatRows(outputs, 1.0f), FloatRows(outputs)};
  for (int64_t j = 0; j < outputs; ++j) layer.bias[j] = static_cast<float>(j - 2400) / 200;
  const float zero = 0;
  for (const NamedKernel& one : row_kernels()) {
    CAPTURE(one.name);
    FloatRows found(outputs);
    const std::unique_ptr<PackedLinear> packed = layer.packed(*one.kernel, false);
    one.kernel->multiply(packed->weights(), &zero, 1, Activation::kGelu, found.data(), 0, outputs,
                         RowScratch{});
    for (int64_t j = 0; j < outputs; ++j) {
      const double x = layer.bias[j];
      CHECK(std::abs(found[j] - error_function_gelu(x)) < 2e-6 * std::max(1.0, std::abs(x)));
    }
  }
}

TEST_CASE("every kernel computes the same, but for rounding") {
  std::mt19937 random(3);
  const Layer layer = random_layer(random, 96, 200);
  const FloatRows x = random_rows(random, 33 * 96);
  for (const bool quantised : {false, true}) {
    const FloatRows expected = run_linear(row_kernel_for(Isa::kBaseline), layer, x, 33, quantised);
    for (const NamedKernel& one : row_kernels()) {
      CAPTURE(one.name);
      const FloatRows found = run_linear(*one.kernel, layer, x, 33, quantised);
      CHECK(largest_difference(found, expected) < (quantised ? 8e-2 : 1e-5));
    }
  }
}

// `hidden`, `inner`: whole tiles of AMX, or not.
void check_post_attention(int64_t hidden, int64_t inner) {
  std::mt19937 random(4);
  const PostAttentionLayers layers = random_post_attention(random, hidden, inner);
  const auto& [out, first, second, next, norm] = layers;
  const int64_t rows = 71;
  const FloatRows context = random_rows(random, rows * hidden);
  const FloatRows residual = random_rows(random, rows * hidden);
  for (const NamedKernel& one : row_kernels()) {
    for (const bool quantised : {false, true}) {
      CAPTURE(one.name);
      CAPTURE(quantised);
      const PostAttentionWeights weights = layers.packed(*one.kernel, quantised);
      FloatRows output(rows * hidden);
      FloatRows qkv(rows * 3 * hidden);
      post_attention(*one.kernel, weights, context.data(), residual.data(), rows, output.data(),
                     qkv.data(), kOneAfterTheOther);

      const FloatRows attended =
          plain_norm(plain_linear(out, context, rows, quantised), residual, hidden, norm);
      FloatRows middle = plain_linear(first, attended, rows, quantised);
      for (float& value : middle) value = static_cast<float>(error_function_gelu(value));
      const FloatRows expected =
          plain_norm(plain_linear(second, middle, rows, quantised), attended, hidden, norm);
      CHECK(largest_difference(output, expected) < (quantised ? 0.3 : 1e-4));
      CHECK(largest_difference(qkv, plain_linear(next, output, rows, quantised)) <
            (quantised ? 0.1 : 1e-4));

      for (const int64_t row : {int64_t{0}, int64_t{40}, rows - 1}) {
        FloatRows alone(hidden);
        FloatRows alone_qkv(3 * hidden);
        post_attention(*one.kernel, weights, context.data() + row * hidden,
                       residual.data() + row * hidden, 1, alone.data(), alone_qkv.data(),
                       kOneAfterTheOther);
        CHECK(std::memcmp(alone.data(), output.data() + row * hidden, hidden * 4) == 0);
        CHECK(std::memcmp(alone_qkv.data(), qkv.data() + 3 * row * hidden, 3 * hidden * 4) == 0);
      }
    }
  }
}

TEST_CASE("post_attention is what a layer does, and a row depends on itself alone") {
  check_post_attention(48, 100);
  check_post_attention(64, 192);
}

}  // namespace
}  // namespace crisp
