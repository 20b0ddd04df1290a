// Equal layers are kept once in a process, and nothing else is.
#include <cstdint>
#include <memory>
#include <vector>

#include "doctest/doctest.h"
#include "isa.h"
#include "shared_linear.h"

namespace crisp {
namespace {

constexpr int64_t kInputs = 40;
constexpr int64_t kOutputs = 24;

template <typename Weight>
struct Layer {
  std::vector<Weight> weight = std::vector<Weight>(kInputs * kOutputs, Weight{3});
  std::vector<float> scale = std::vector<float>(kOutputs, 0.5f);
  std::vector<float> bias = std::vector<float>(kOutputs, 0.25f);

  std::shared_ptr<const PackedLinear> shared(Isa isa = Isa::kBaseline) const {
    return crisp::shared(std::make_unique<PackedLinear>(
        row_kernel_for(isa), weight.data(), scale.data(), bias.data(), kInputs, kOutputs));
  }
};

TEST_CASE("layers with equal weights are one, for as long as somebody holds it") {
  const Layer<int8_t> layer;
  std::shared_ptr<const PackedLinear> kept = layer.shared();
  CHECK((layer.shared() == kept));
  const std::weak_ptr<const PackedLinear> watched = kept;
  kept.reset();
  CHECK(watched.expired());
}

TEST_CASE("layers that differ in anything are kept apart") {
  const Layer<int8_t> layer;
  const std::shared_ptr<const PackedLinear> kept = layer.shared();
  CHECK((Layer<float>().shared() != kept));
  Layer<int8_t> other;
  other.weight.back() = 4;
  CHECK((other.shared() != kept));
  other = layer;
  other.scale.back() = 1;
  CHECK((other.shared() != kept));
  other = layer;
  other.bias.back() = 1;
  CHECK((other.shared() != kept));
}

TEST_CASE("layers laid out for kernels with other panels are kept apart") {
  const Layer<int8_t> layer;
  const std::shared_ptr<const PackedLinear> kept = layer.shared();
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (is_supported(isa)) CHECK((layer.shared(isa) != kept));
  }
}

}  // namespace
}  // namespace crisp
