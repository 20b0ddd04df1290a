// The row operators' and PruneTokens' block programs on the host, against plain loops in double and
// against the CPU library.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda/operators.h"

namespace crisp {
namespace {

using Doubles = std::vector<double>;

struct HostDevice {
  std::vector<std::vector<char>> memory;
  cuda::Device device{nullptr, nullptr, [this](size_t bytes) -> void* {
                        memory.emplace_back(bytes, static_cast<char>(0xff));
                        return memory.back().data();
                      }};
};

// A tensor of T, and the numbers that it holds.
template <class T>
struct Tensor {
  std::vector<T> values;

  explicit Tensor(size_t size, float value = 12345.0f) : values(size, cuda::from_float<T>(value)) {}
  static Tensor random(size_t size, std::mt19937& generator, float deviation = 1.0f) {
    Tensor tensor(size);
    std::normal_distribution<float> normal(0.0f, deviation);
    for (T& value : tensor.values) value = cuda::from_float<T>(normal(generator));
    return tensor;
  }
  double at(size_t i) const { return static_cast<double>(cuda::to_float(values[i])); }
  Doubles doubles() const {
    Doubles result;
    for (size_t i = 0; i < values.size(); ++i) result.push_back(at(i));
    return result;
  }
};

template <class T>
struct Layer {
  int64_t inputs, outputs;
  Tensor<T> weight;
  Tensor<float> scale, bias;

  Layer(int64_t inputs, int64_t outputs, std::mt19937& random)
      : inputs(inputs),
        outputs(outputs),
        weight(Tensor<T>::random(static_cast<size_t>(inputs * outputs), random,
                                 1.0f / std::sqrt(static_cast<float>(inputs)))),
        scale(Tensor<float>::random(static_cast<size_t>(outputs), random)),
        bias(Tensor<float>::random(static_cast<size_t>(outputs), random)) {}

  cuda::Linear linear() const {
    return {weight.values.data(), scale.values.data(), bias.values.data(), inputs, outputs};
  }
  Doubles expected(const Doubles& x, int64_t rows) const {
    Doubles y;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < outputs; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          sum += x[static_cast<size_t>(row * inputs + i)] *
                 weight.at(static_cast<size_t>(i * outputs + j));
        }
        y.push_back(sum * scale.at(static_cast<size_t>(j)) + bias.at(static_cast<size_t>(j)));
      }
    }
    return y;
  }
};

struct NormLayer {
  Tensor<float> gamma, beta;
  explicit NormLayer(int64_t width, std::mt19937& random)
      : gamma(Tensor<float>::random(static_cast<size_t>(width), random)),
        beta(Tensor<float>::random(static_cast<size_t>(width), random)) {}
  cuda::Norm norm() const { return {gamma.values.data(), beta.values.data(), 1e-12f}; }
  Doubles expected(Doubles x) const {
    const size_t width = gamma.values.size();
    for (size_t row = 0; row < x.size() / width; ++row) {
      double* const at = x.data() + row * width;
      double mean = 0, variance = 0;
      for (size_t i = 0; i < width; ++i) mean += at[i] / static_cast<double>(width);
      for (size_t i = 0; i < width; ++i) {
        variance += (at[i] - mean) * (at[i] - mean) / static_cast<double>(width);
      }
      for (size_t i = 0; i < width; ++i) {
        at[i] = (at[i] - mean) / std::sqrt(variance + 1e-12) * gamma.at(i) + beta.at(i);
      }
    }
    return x;
  }
};

Doubles sum_of(Doubles one, const Doubles& other) {
  for (size_t i = 0; i < one.size(); ++i) one[i] += other[i];
  return one;
}

template <class T>
constexpr cuda::Precision precision_of() {
  return sizeof(T) == 2 ? cuda::Precision::kHalf : cuda::Precision::kFloat;
}

// Of some roundings in a row, to 24 or 11 bits, of numbers of some units.
template <class T>
void check_close(const Tensor<T>& found, const Doubles& expected) {
  const double tolerance = sizeof(T) == 2 ? 2e-2 : 2e-5;
  REQUIRE(found.values.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, std::abs(found.at(i) - expected[i]) / (1 + std::abs(expected[i])));
  }
  CHECK(worst <= tolerance);
}

TEST_CASE_TEMPLATE("cuda: Linear, PostAttention and q, k, v of the next layer", T, float,
                   cuda::Half) {
  std::mt19937 random(3);
  for (const int64_t rows : {0, 1, 3, 4, 5, 33}) {
    for (const int64_t width : {1, 20, 33, 96}) {
      CAPTURE(rows);
      CAPTURE(width);
      const Layer<T> out(width, width, random), inner(width, 3 * width + 1, random),
          outer(3 * width + 1, width, random), qkv(width, 3 * width, random);
      const NormLayer attended(width, random), output(width, random);
      const auto size = static_cast<size_t>(rows * width);
      const Tensor<T> context = Tensor<T>::random(size, random);
      const Tensor<T> hidden = Tensor<T>::random(size, random);
      Tensor<T> found(size), found_qkv(3 * size), y(3 * size);
      const cuda::Linear next = qkv.linear();
      const cuda::PostAttention call = {precision_of<T>(),
                                        out.linear(),
                                        inner.linear(),
                                        outer.linear(),
                                        &next,
                                        attended.norm(),
                                        output.norm(),
                                        context.values.data(),
                                        hidden.values.data(),
                                        rows,
                                        found.values.data(),
                                        found_qkv.values.data()};
      HostDevice host;
      cuda::post_attention(host.device, call);
      const Doubles after_attention =
          attended.expected(sum_of(out.expected(context.doubles(), rows), hidden.doubles()));
      Doubles wide = inner.expected(after_attention, rows);
      for (double& x : wide) x = 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
      if (width > 1) {  // LayerNorm of one number divides rounding by rounding
        check_close(found, output.expected(sum_of(outer.expected(wide, rows), after_attention)));
      }
      check_close(found_qkv, qkv.expected(found.doubles(), rows));
      cuda::linear(host.device, precision_of<T>(), next, hidden.values.data(), rows,
                   y.values.data());
      check_close(y, qkv.expected(hidden.doubles(), rows));
    }
  }
}

TEST_CASE_TEMPLATE("cuda: Embed", T, float, cuda::Half) {
  std::mt19937 random(4);
  const size_t words = 30, positions = 9, width = 40;
  const auto word_table = Tensor<T>::random(words * width, random);
  const auto position_table = Tensor<T>::random(positions * width, random);
  const auto word_scale = Tensor<float>::random(words, random);
  const auto position_scale = Tensor<float>::random(positions, random);
  const NormLayer norm(static_cast<int64_t>(width), random);
  const std::vector<int32_t> offsets = {0, 4, 4, 13, 14};
  std::vector<int64_t> ids;
  Doubles sums;
  for (size_t token = 0; token < 14; ++token) {
    ids.push_back(std::uniform_int_distribution<int64_t>(0, 29)(random));
    const auto word = static_cast<size_t>(ids.back());
    const size_t position = token < 4 ? token : token < 13 ? token - 4 : 0;
    for (size_t i = 0; i < width; ++i) {
      sums.push_back(word_table.at(word * width + i) * word_scale.at(word) +
                     position_table.at(position * width + i) * position_scale.at(position));
    }
  }
  Tensor<T> hidden(14 * width);
  cuda::Embedding call = {precision_of<T>(),
                          word_table.values.data(),
                          word_scale.values.data(),
                          30,
                          position_table.values.data(),
                          position_scale.values.data(),
                          9,
                          40,
                          norm.norm(),
                          ids.data(),
                          offsets.data(),
                          4,
                          hidden.values.data()};
  HostDevice host;
  cuda::embed(host.device, call);
  check_close(hidden, norm.expected(sums));
  SUBCASE("an id outside the words gives a row of NaN, and touches no other") {
    ids[5] = 30;
    ids[6] = -1;
    cuda::embed(host.device, call);
    for (size_t token = 0; token < 14; ++token) {
      CHECK(std::isnan(hidden.at(token * width)) == (token == 5 || token == 6));
    }
  }
  SUBCASE("a sequence that is longer than there are positions is refused") {
    call.position_count = 8;
    CHECK_THROWS_AS(cuda::embed(host.device, call), std::invalid_argument);
  }
}

TEST_CASE("cuda: PruneTokens keeps what the CPU library keeps") {
  std::mt19937 random(6);
  const auto draw = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<int32_t> live = {0}, original = {0};
    for (int64_t i = draw(0, trial == 0 ? 0 : 5); i > 0; --i) {
      const int64_t length = trial % 10 == 0 ? draw(500, 1500) : draw(1, 60);
      original.push_back(original.back() + static_cast<int32_t>(length));
      live.push_back(live.back() + static_cast<int32_t>(draw(1, length)));
    }
    const int64_t batch = static_cast<int64_t>(live.size()) - 1;
    std::vector<float> received;
    for (int32_t token = 0; token < live.back(); ++token) {
      const int64_t value = draw(-3, 8);  // ties, both zeros and NaN are common
      received.push_back(value == 7   ? std::nanf("")
                         : value == 8 ? -0.0f
                                      : static_cast<float>(value));
    }
    const int64_t den = draw(1, 12);
    const PruneRule rule = {draw(1, den), den, draw(1, 20)};
    const KeptTokens expected =
        prune_tokens(rule, received.data(), live.data(), original.data(), batch);
    const int64_t count = cuda::count_kept(rule, live.data(), original.data(), batch);
    REQUIRE(count == static_cast<int64_t>(expected.kept.size()));
    std::vector<int64_t> kept(static_cast<size_t>(count), -1);
    std::vector<int32_t> offsets(live.size(), -1);
    HostDevice host;
    cuda::prune_tokens(host.device, rule, received.data(), live.data(), original.data(), batch,
                       kept.data(), offsets.data());
    CHECK(kept == expected.kept);
    CHECK(offsets == expected.cu_seqlens);
  }
}

}  // namespace
}  // namespace crisp
