// The row operators: every kernel against plain loops, and the kernels against each other.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "isa.h"
#include "rows.h"

namespace crisp {

// row_kernel.cc compiled for vectors of 64 bytes without any instruction set: the layout of the
// AVX-512 kernels, on any processor.
namespace emulated {
extern const RowKernel kRowKernel;
}

namespace {

struct Named {
  std::string name;
  const RowKernel* kernel;
};

std::vector<Named> kernels() {
  std::vector<Named> found = {{"emulated", &emulated::kRowKernel}};
  for (const Isa isa : kEveryIsa) {
    if (is_supported(isa)) found.push_back({name_of(isa), &row_kernel_for(isa)});
  }
  return found;
}

const ParallelFor kOneAfterTheOther = [](size_t tasks, const std::function<void(size_t)>& task) {
  for (size_t i = tasks; i-- > 0;) task(i);
};

using Floats = std::vector<float>;

struct Layer {
  int64_t inputs;
  int64_t outputs;
  std::vector<int8_t> bytes;
  Floats floats;
  Floats scale;
  Floats bias;

  std::unique_ptr<PackedLinear> packed(const RowKernel& kernel, bool quantised) const {
    if (quantised) {
      return std::make_unique<PackedLinear>(kernel, bytes.data(), scale.data(), bias.data(), inputs,
                                            outputs);
    }
    return std::make_unique<PackedLinear>(kernel, floats.data(), scale.data(), bias.data(), inputs,
                                          outputs);
  }
};

Layer random_layer(std::mt19937& random, int64_t inputs, int64_t outputs) {
  std::uniform_int_distribution<int> weight(-64, 64);
  std::normal_distribution<float> normal;
  Layer layer{inputs, outputs, {}, {}, Floats(outputs), Floats(outputs)};
  for (int64_t i = 0; i < inputs * outputs; ++i) {
    layer.bytes.push_back(static_cast<int8_t>(weight(random)));
    layer.floats.push_back(layer.bytes.back());
  }
  const float size = 1.0f / (37.0f * std::sqrt(static_cast<float>(inputs)));
  for (float& value : layer.scale) value = size * (1.5f + 0.1f * normal(random));
  for (float& value : layer.bias) value = 0.1f * normal(random);
  return layer;
}

Floats random_rows(std::mt19937& random, int64_t count) {
  std::normal_distribution<float> normal;
  Floats values(count);
  for (float& value : values) value = normal(random);
  return values;
}

double error_function_gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

// What rows.h says of quantised rows, in doubles but for the numbers that decide the rounding.
std::vector<double> quantised_row(const float* x, int64_t width) {
  float lowest = 0;
  float highest = 0;
  for (int64_t i = 0; i < width; ++i) {
    lowest = std::min(lowest, x[i]);
    highest = std::max(highest, x[i]);
  }
  float step = (highest - lowest) / 127;
  if (!(step > 0)) step = 1;
  const double zero = std::nearbyint(-static_cast<double>(lowest) * (1.0f / step));
  std::vector<double> values;
  for (int64_t i = 0; i < width; ++i) {
    const double whole = std::nearbyint(static_cast<double>(x[i]) * (1.0f / step)) + zero;
    values.push_back((std::min(whole, 127.0) - zero) * step);
  }
  return values;
}

Floats plain_linear(const Layer& layer, const Floats& x, int64_t rows, bool quantised) {
  Floats y;
  for (int64_t row = 0; row < rows; ++row) {
    const float* const from = x.data() + row * layer.inputs;
    std::vector<double> values(from, from + layer.inputs);
    if (quantised) values = quantised_row(from, layer.inputs);
    for (int64_t j = 0; j < layer.outputs; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < layer.inputs; ++i) {
        sum += values[i] * layer.bytes[i * layer.outputs + j];
      }
      y.push_back(static_cast<float>(sum * layer.scale[j] + layer.bias[j]));
    }
  }
  return y;
}

Floats plain_norm(const Floats& x, const Floats& y, int64_t width, const LayerNorm& norm) {
  Floats result;
  for (size_t begin = 0; begin < x.size(); begin += width) {
    double mean = 0;
    double variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += (x[begin + i] + y[begin + i]) / double(width);
    for (int64_t i = 0; i < width; ++i) {
      variance += std::pow(x[begin + i] + y[begin + i] - mean, 2) / double(width);
    }
    for (int64_t i = 0; i < width; ++i) {
      const double normal =
          (x[begin + i] + y[begin + i] - mean) / std::sqrt(variance + norm.epsilon);
      result.push_back(static_cast<float>(normal * norm.gamma[i] + norm.beta[i]));
    }
  }
  return result;
}

double largest_difference(const Floats& a, const Floats& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

Floats run_linear(const RowKernel& kernel, const Layer& layer, const Floats& x, int64_t rows,
                  bool quantised) {
  // One more than there are, which must stay as it is.
  Floats y(rows * layer.outputs + 1, -7.0f);
  linear(kernel, *layer.packed(kernel, quantised), x.data(), rows, y.data(), kOneAfterTheOther);
  CHECK(y.back() == -7.0f);
  y.pop_back();
  return y;
}

TEST_CASE("linear is the plain product, around every width") {
  std::mt19937 random(1);
  for (const Named& one : kernels()) {
    CAPTURE(one.name);
    const int64_t columns = one.kernel->columns;
    for (const int64_t inputs : {int64_t{1}, int64_t{7}, int64_t{8}, int64_t{9}, int64_t{65}}) {
      for (const int64_t outputs : {int64_t{1}, columns - 1, columns, columns + 1, 3 * columns}) {
        const Layer layer = random_layer(random, inputs, outputs);
        for (const int64_t rows : {0, 1, 2, 5, 9, 70}) {
          const Floats x = random_rows(random, rows * inputs);
          const Floats floats = run_linear(*one.kernel, layer, x, rows, false);
          CHECK(largest_difference(floats, plain_linear(layer, x, rows, false)) < 2e-5);
          // A value between two steps may fall to either side: one step of one weight.
          const Floats bytes = run_linear(*one.kernel, layer, x, rows, true);
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
  for (const Named& one : kernels()) {
    CAPTURE(one.name);
    Layer layer = random_layer(random, inputs, 50);
    std::fill(layer.scale.begin(), layer.scale.end(), 1.0f);
    std::fill(layer.bias.begin(), layer.bias.end(), 0.0f);
    for (int64_t i = 0; i < inputs; ++i) {
      layer.bytes[i * 50] = 64;
      layer.bytes[i * 50 + 1] = -64;
    }
    Floats x(2 * inputs, 127.0f);
    for (int64_t i = 1; i < inputs; ++i) x[inputs + i] = static_cast<float>(digit(random));
    const Floats found = run_linear(*one.kernel, layer, x, 2, true);
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
        Floats x(rows * inputs);
        for (float& value : x) value = static_cast<float>(digit(random));
        for (int64_t row = 0; row < rows; ++row) x[row * inputs] = 127;  // so that the step is 1
        Floats expected;
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t j = 0; j < outputs; ++j) {
            int64_t sum = 0;
            for (int64_t i = 0; i < inputs; ++i) {
              sum += static_cast<int64_t>(x[row * inputs + i]) * layer.bytes[i * outputs + j];
            }
            expected.push_back(static_cast<float>(sum));
          }
        }
        for (const Named& one : kernels()) {
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
  for (const Named& one : kernels()) {
    CAPTURE(one.name);
    for (const std::vector<int>& sums : limits) {
      const int64_t outputs = static_cast<int64_t>(sums.size()) * one.kernel->columns;
      Layer layer{32,
                  outputs,
                  std::vector<int8_t>(32 * outputs),
                  {},
                  Floats(outputs, 1.0f),
                  Floats(outputs)};
      for (size_t panel = 0; panel < sums.size(); ++panel) {
        int left = std::abs(sums[panel]);
        for (const int64_t input : {16, 17, 20, 21, 24, 25, 28, 29}) {
          const int weight = std::min(left, 64);
          left -= weight;
          layer.bytes[input * outputs + static_cast<int64_t>(panel) * one.kernel->columns + 3] =
              static_cast<int8_t>(sums[panel] < 0 ? -weight : weight);
        }
      }
      const Floats x(32, 127.0f);
      const Floats found = run_linear(*one.kernel, layer, x, 1, true);
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
  Layer layer{1, outputs, {}, Floats(outputs, 1.0f), Floats(outputs, 1.0f), Floats(outputs)};
  for (int64_t j = 0; j < outputs; ++j) layer.bias[j] = static_cast<float>(j - 2400) / 200;
  const float zero = 0;
  for (const Named& one : kernels()) {
    CAPTURE(one.name);
    Floats found(outputs);
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
  const Floats x = random_rows(random, 33 * 96);
  for (const bool quantised : {false, true}) {
    const Floats expected = run_linear(row_kernel_for(Isa::kBaseline), layer, x, 33, quantised);
    for (const Named& one : kernels()) {
      CAPTURE(one.name);
      const Floats found = run_linear(*one.kernel, layer, x, 33, quantised);
      CHECK(largest_difference(found, expected) < (quantised ? 8e-2 : 1e-5));
    }
  }
}

// `hidden`, `inner`: whole tiles of AMX, or not.
void check_post_attention(int64_t hidden, int64_t inner) {
  std::mt19937 random(4);
  const Layer out = random_layer(random, hidden, hidden);
  const Layer first = random_layer(random, hidden, inner);
  const Layer second = random_layer(random, inner, hidden);
  const Layer next = random_layer(random, hidden, 3 * hidden);
  const LayerNorm norm = {random_rows(random, hidden), random_rows(random, hidden), 1e-12f};
  const int64_t rows = 71;
  const Floats context = random_rows(random, rows * hidden);
  const Floats residual = random_rows(random, rows * hidden);
  for (const Named& one : kernels()) {
    for (const bool quantised : {false, true}) {
      CAPTURE(one.name);
      CAPTURE(quantised);
      PostAttentionWeights weights;
      weights.out = out.packed(*one.kernel, quantised);
      weights.inner = first.packed(*one.kernel, quantised);
      weights.outer = second.packed(*one.kernel, quantised);
      weights.qkv = next.packed(*one.kernel, quantised);
      weights.attended = norm;
      weights.output = norm;
      Floats output(rows * hidden);
      Floats qkv(rows * 3 * hidden);
      post_attention(*one.kernel, weights, context.data(), residual.data(), rows, output.data(),
                     qkv.data(), kOneAfterTheOther);

      const Floats attended =
          plain_norm(plain_linear(out, context, rows, quantised), residual, hidden, norm);
      Floats middle = plain_linear(first, attended, rows, quantised);
      for (float& value : middle) value = static_cast<float>(error_function_gelu(value));
      const Floats expected =
          plain_norm(plain_linear(second, middle, rows, quantised), attended, hidden, norm);
      CHECK(largest_difference(output, expected) < (quantised ? 0.3 : 1e-4));
      CHECK(largest_difference(qkv, plain_linear(next, output, rows, quantised)) <
            (quantised ? 0.1 : 1e-4));

      for (const int64_t row : {int64_t{0}, int64_t{40}, rows - 1}) {
        Floats alone(hidden);
        Floats alone_qkv(3 * hidden);
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
  const Layer out = random_layer(random, hidden, hidden);
  const Layer first = random_layer(random, hidden, inner);
  const Layer second = random_layer(random, inner, hidden);
  const Layer next = random_layer(random, hidden, 3 * hidden);
  const LayerNorm norm = {random_rows(random, hidden), random_rows(random, hidden), 1e-12f};
  const Floats context = random_rows(random, 33 * hidden);
  for (const Named& one : kernels()) {
    for (const bool quantised : {false, true}) {
      PostAttentionWeights weights;
      weights.out = out.packed(*one.kernel, quantised);
      weights.inner = first.packed(*one.kernel, quantised);
      weights.outer = second.packed(*one.kernel, quantised);
      weights.qkv = next.packed(*one.kernel, quantised);
      weights.attended = norm;
      weights.output = norm;
      for (const int64_t rows : {1, 2, 13, 32, 33}) {
        CAPTURE(one.name);
        CAPTURE(rows);
        const auto run = [&](const ParallelFor& parallel_for) {
          Floats found(4 * rows * hidden);
          post_attention(*one.kernel, weights, context.data(), context.data(), rows, found.data(),
                         found.data() + rows * hidden, parallel_for);
          return found;
        };
        const Floats expected = run(kOneAfterTheOther);
        for (int turn = 0; turn < 5; ++turn) CHECK(run(kThreads) == expected);
      }
    }
  }
}

TEST_CASE("a row that is not finite stays alone; one of zeros is the bias") {
  std::mt19937 random(5);
  const Layer layer = random_layer(random, 21, 40);
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Named& one : kernels()) {
    for (const bool quantised : {false, true}) {
      CAPTURE(one.name);
      CAPTURE(quantised);
      Floats x = random_rows(random, 9 * 21);
      std::fill_n(x.begin() + 3 * 21, 21, 0.0f);
      const Floats good = run_linear(*one.kernel, layer, x, 9, quantised);
      CHECK(std::equal(layer.bias.begin(), layer.bias.end(), good.begin() + 3 * 40));
      for (const float bad : {std::nanf(""), infinity, -infinity}) {
        for (const int64_t at : {0, 20}) {
          Floats spoilt = x;
          spoilt[5 * 21 + at] = bad;
          const Floats found = run_linear(*one.kernel, layer, spoilt, 9, quantised);
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

}  // namespace
}  // namespace crisp
