// How long crisp::PostAttentionQkv takes, against the arithmetic alone: one thread, MiniLM's shape
// (384, 1536), six layers of weights in turn as in the model, so that they come from where they do
// there. bench.sh runs it. Times are of the thread.
//
//   row_ns    nanoseconds a token and layer
//   ideal_ns  the least that its products could take at the peak of this instruction set: multiply-
//             adds of floats as measured here, or 3.2 of that for bytes (five multiplications make
//             128 products instead of 40), 4 times with VNNI
//   ideal     ideal_ns / row_ns; what is missing to 1 are quantising, GELU, LayerNorm, and waits
#include <benchmark/benchmark.h>

#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "measuring.h"
#include "rows.h"

namespace crisp {
namespace {

constexpr int64_t kHidden = 384;
constexpr int64_t kInner = 1536;
constexpr int kLayers = 6;
constexpr double kProducts = kHidden * (4.0 * kHidden + 2.0 * kInner);  // a token and layer

double products_per_float(Isa isa) {
  if (isa == Isa::kAmx) return 32;
  if (isa == Isa::kAvx512Bf16 || isa == Isa::kAvx512Vnni || isa == Isa::kAvxVnni) return 4;
  return isa == Isa::kBaseline ? 1 : 3.2;
}

template <typename Weight>
std::unique_ptr<PackedLinear> random_layer(const RowKernel& kernel, std::mt19937& random,
                                           int64_t inputs, int64_t outputs) {
  std::uniform_int_distribution<int> digit(-64, 64);
  std::vector<Weight> weight(static_cast<size_t>(inputs * outputs));
  for (Weight& value : weight) value = static_cast<Weight>(digit(random));
  const std::vector<float> scale(static_cast<size_t>(outputs), 1e-3f);
  const std::vector<float> bias(static_cast<size_t>(outputs), 0.1f);
  return std::make_unique<PackedLinear>(kernel, weight.data(), scale.data(), bias.data(), inputs,
                                        outputs);
}

template <typename Weight>
void run(benchmark::State& state, Isa isa, double peak) {
  const RowKernel& kernel = row_kernel_for(isa);
  std::mt19937 random(1);
  const LayerNorm norm = {std::vector<float>(kHidden, 1.0f), std::vector<float>(kHidden, 0.0f),
                          1e-12f};
  std::vector<PostAttentionWeights> layers(kLayers);
  for (PostAttentionWeights& layer : layers) {
    layer.out = random_layer<Weight>(kernel, random, kHidden, kHidden);
    layer.inner = random_layer<Weight>(kernel, random, kHidden, kInner);
    layer.outer = random_layer<Weight>(kernel, random, kInner, kHidden);
    layer.qkv = random_layer<Weight>(kernel, random, kHidden, 3 * kHidden);
    layer.attended = norm;
    layer.output = norm;
  }
  const int64_t rows = state.range(0);
  std::normal_distribution<float> normal;
  std::vector<float> context(static_cast<size_t>(rows * kHidden));
  for (float& value : context) value = normal(random);
  std::vector<float> output(context.size());
  std::vector<float> qkv(3 * context.size());
  const auto serially = [](size_t tasks, const std::function<void(size_t)>& task) {
    for (size_t i = 0; i < tasks; ++i) task(i);
  };
  const double begin = thread_ns();
  for (auto _ : state) {
    for (const PostAttentionWeights& layer : layers) {
      post_attention(kernel, layer, context.data(), context.data(), rows, output.data(), qkv.data(),
                     serially);
      benchmark::ClobberMemory();
    }
  }
  const double row_ns = (thread_ns() - begin) / static_cast<double>(state.iterations()) /
                        static_cast<double>(rows * kLayers);
  const double faster = sizeof(Weight) == 1 ? products_per_float(isa) : 1.0;
  const double ideal_ns = 2 * kProducts / peak / faster;
  state.counters["row_ns"] = row_ns;
  state.counters["ideal_ns"] = ideal_ns;
  state.counters["ideal"] = ideal_ns / row_ns;
}

}  // namespace
}  // namespace crisp

int main(int argc, char** argv) {
  const crisp::Isa isa = crisp::choose_isa();
  const double peak = crisp::peak_of(isa);
  std::printf("%s, %.1f GFLOP/s of multiply-adds on one core\n", crisp::name_of(isa), peak);
  for (const auto& [name, function] :
       {std::pair{"rows_int8", crisp::run<int8_t>}, std::pair{"rows_fp32", crisp::run<float>}}) {
    benchmark::RegisterBenchmark(name, function, isa, peak)
        ->ArgName("rows")
        ->Arg(1)
        ->Arg(13)
        ->Arg(25)
        ->Arg(200)
        ->Arg(800)
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
