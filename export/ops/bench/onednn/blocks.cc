#include "blocks.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <utility>

namespace linears {
namespace {

using Floats = std::vector<float>;

constexpr int64_t kHidden = 384, kInner = 1536, kQkv = 3 * kHidden;
constexpr int64_t kCheckedRows = 3;

// Normal in, normal out; 4 standard deviations on either side are what calibration would find.
constexpr ByteScale kNormal{4.0f / 127.0f, 128};
// GELU of such a value lies between -0.17 and 4.
constexpr ByteScale kGelu{4.2f / 255.0f, 10};

Floats normal(int64_t count, float deviation, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw(0.0f, deviation);
  Floats values(count);
  for (float& value : values) value = draw(random);
  return values;
}

// Row-wise reference of one linear; `x` [rows, inner].
Floats reference(const Floats& x, int64_t rows, int64_t inner, int64_t columns, const Floats& w,
                 const Floats& bias, bool gelu) {
  Floats y(rows * columns);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < columns; ++n) {
      double sum = bias[n];
      for (int64_t k = 0; k < inner; ++k) sum += double(x[m * inner + k]) * w[k * columns + n];
      if (gelu) sum *= 0.5 * (1.0 + std::erf(sum / std::sqrt(2.0)));
      y[m * columns + n] = static_cast<float>(sum);
    }
  }
  return y;
}

double relative_error(const Floats& expected, const float* found) {
  double differences = 0.0, squares = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    differences += std::pow(expected[i] - found[i], 2);
    squares += std::pow(expected[i], 2);
  }
  return std::sqrt(differences / squares);
}

// The rows of a linear's input in the form that its precision wants. `prepare` is what quantisation
// costs on every run; with a static scale the bytes come from the step before.
struct Rows {
  Precision precision;
  int64_t rows, columns;
  std::vector<uint8_t> bytes;
  Floats scales;  // of each row
  float tensor_scale = 1.0f;

  Rows(Precision p, int64_t r, int64_t c)
      : precision(p), rows(r), columns(c), bytes(r * c), scales(r) {}

  const void* prepare(const Floats& x) {
    if (precision == Precision::kFloat32) return x.data();
    if (precision == Precision::kRows) {
      quantize_rows(x.data(), rows, columns, bytes.data(), scales.data());
    } else if (precision == Precision::kTensor) {
      tensor_scale = quantize_tensor(x.data(), rows * columns, bytes.data()).scale;
    }
    return bytes.data();
  }
};

// A linear by itself. With a static scale, ffn1 requantises its output for ffn2, and bytes come in;
// the others give fp32, as attention and LayerNorm want it.
class OneLinear : public Block {
 public:
  OneLinear(const Case& what, int64_t inner, int64_t columns, bool gelu)
      : rows_(what.rows),
        inner_(inner),
        columns_(columns),
        gelu_(gelu),
        bytes_out_(gelu && what.precision == Precision::kStatic),
        x_(normal(rows_ * inner, 1.0f, 1)),
        w_(normal(inner * columns, 1.0f / std::sqrt(float(inner)), 2)),
        bias_(normal(columns, 0.1f, 3)),
        input_(what.precision, rows_, inner),
        y_(rows_ * columns),
        y_bytes_(rows_ * columns),
        linear_(what.backend, what.precision,
                {rows_, inner, columns, gelu, false, bytes_out_, what.weight_steps}, w_, bias_,
                kNormal, kGelu) {
    quantize_all(x_.data(), rows_ * inner, kNormal, input_.bytes.data());
  }

  void run() override {
    const void* input = input_.prepare(x_);
    linear_.run(input, input_.tensor_scale, nullptr,
                bytes_out_ ? static_cast<void*>(y_bytes_.data()) : y_.data());
    if (input_.precision != Precision::kRows) return;
    if (gelu_) {
      scale_rows_gelu(y_.data(), rows_, columns_, input_.scales.data(), bias_.data(), nullptr);
    } else {
      scale_rows(y_.data(), rows_, columns_, input_.scales.data(), bias_.data());
    }
  }

  double error() override {
    run();
    const int64_t rows = std::min(rows_, kCheckedRows);
    if (bytes_out_) {
      for (int64_t i = 0; i < rows * columns_; ++i) {
        y_[i] = kGelu.scale * static_cast<float>(y_bytes_[i] - kGelu.zero);
      }
    }
    return relative_error(reference(x_, rows, inner_, columns_, w_, bias_, gelu_), y_.data());
  }

  std::string implementation() const override { return linear_.implementation(); }
  double operations() const override { return 2.0 * double(rows_) * double(inner_ * columns_); }

 private:
  int64_t rows_, inner_, columns_;
  bool gelu_, bytes_out_;
  Floats x_, w_, bias_;
  Rows input_;
  Floats y_;
  std::vector<uint8_t> y_bytes_;
  Linear linear_;
};

// x -> LayerNorm(x + (GELU(x W1 + b1) W2 + b2)). With static scales x comes in both as fp32 and as
// bytes, and so does the result leave, as the next linear wants it.
class FeedForward : public Block {
 public:
  explicit FeedForward(const Case& what)
      : rows_(what.rows),
        static_(what.precision == Precision::kStatic),
        x_(normal(rows_ * kHidden, 1.0f, 1)),
        w1_(normal(kHidden * kInner, 1.0f / std::sqrt(float(kHidden)), 2)),
        w2_(normal(kInner * kHidden, 1.0f / std::sqrt(float(kInner)), 3)),
        b1_(normal(kInner, 0.1f, 4)),
        b2_(normal(kHidden, 0.1f, 5)),
        gamma_(normal(kHidden, 1.0f, 6)),
        beta_(normal(kHidden, 0.1f, 7)),
        input_(what.precision, rows_, kHidden),
        middle_(what.precision, rows_, kInner),
        inner_(rows_ * kInner),
        sum_(rows_ * kHidden),
        y_(rows_ * kHidden),
        y_bytes_(rows_ * kHidden),
        first_(what.backend, what.precision,
               {rows_, kHidden, kInner, true, false, static_, what.weight_steps}, w1_, b1_, kNormal,
               kGelu),
        second_(what.backend, what.precision,
                {rows_, kInner, kHidden, false, true, false, what.weight_steps}, w2_, b2_,
                static_ ? kGelu : kNormal, kNormal) {
    quantize_all(x_.data(), rows_ * kHidden, kNormal, input_.bytes.data());
  }

  void run() override {
    const void* input = input_.prepare(x_);
    first_.run(input, input_.tensor_scale, nullptr,
               static_ ? static_cast<void*>(middle_.bytes.data()) : inner_.data());
    if (input_.precision == Precision::kRows) {
      scale_rows_gelu(inner_.data(), rows_, kInner, input_.scales.data(), b1_.data(),
                      middle_.bytes.data());
      second_.run(middle_.bytes.data(), 1.0f, nullptr, sum_.data());
      scale_rows_layer_norm(sum_.data(), rows_, kHidden, input_.scales.data(), b2_.data(),
                            x_.data(), gamma_.data(), beta_.data(), y_.data());
      return;
    }
    const void* middle = middle_.prepare(inner_);
    second_.run(middle, middle_.tensor_scale, x_.data(), sum_.data());
    layer_norm(sum_.data(), rows_, kHidden, gamma_.data(), beta_.data(), y_.data(), kNormal,
               static_ ? y_bytes_.data() : nullptr);
  }

  double error() override {
    run();
    const int64_t rows = std::min(rows_, kCheckedRows);
    Floats sum = reference(reference(x_, rows, kHidden, kInner, w1_, b1_, true), rows, kInner,
                           kHidden, w2_, b2_, false);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += x_[i];
    Floats expected(sum.size());
    layer_norm(sum.data(), rows, kHidden, gamma_.data(), beta_.data(), expected.data(), kNormal,
               nullptr);
    return relative_error(expected, y_.data());
  }

  std::string implementation() const override {
    return first_.implementation() + "," + second_.implementation();
  }
  double operations() const override { return 4.0 * double(rows_) * double(kHidden * kInner); }

 private:
  int64_t rows_;
  bool static_;
  Floats x_, w1_, w2_, b1_, b2_, gamma_, beta_;
  Rows input_, middle_;
  Floats inner_, sum_, y_;
  std::vector<uint8_t> y_bytes_;
  Linear first_, second_;
};

}  // namespace

std::unique_ptr<Block> make_block(const Case& what) {
  if (what.block == "qkv") return std::make_unique<OneLinear>(what, kHidden, kQkv, false);
  if (what.block == "out") return std::make_unique<OneLinear>(what, kHidden, kHidden, false);
  if (what.block == "ffn1") return std::make_unique<OneLinear>(what, kHidden, kInner, true);
  if (what.block == "ffn2") return std::make_unique<OneLinear>(what, kInner, kHidden, false);
  if (what.block == "ffn") return std::make_unique<FeedForward>(what);
  throw std::invalid_argument("block is " + what.block + ", expected qkv, out, ffn1, ffn2 or ffn");
}

}  // namespace linears
