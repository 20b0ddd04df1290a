// The choice of the instruction set.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <stdexcept>

#include "problem.h"

namespace crisp {
namespace {

struct Environment {
  explicit Environment(const char* value) { setenv("CRISP_ISA", value, 1); }
  ~Environment() { unsetenv("CRISP_ISA"); }
};

TEST_CASE("the fastest supported instruction set is chosen") {
  CHECK(choose_isa() == supported_isas().back());
  const Environment none("");
  CHECK(choose_isa() == supported_isas().back());
}

TEST_CASE("CRISP_ISA forces one") {
  for (const Isa isa : kEveryIsa) {
    const Environment forced(name_of(isa));
    if (is_supported(isa)) {
      CHECK(choose_isa() == isa);
    } else {
      CHECK_THROWS_WITH_AS(choose_isa(), doctest::Contains("does not support"),
                           std::invalid_argument);
    }
  }
}

TEST_CASE("an unknown CRISP_ISA is refused") {
  const Environment unknown("sse9");
  CHECK_THROWS_WITH_AS(choose_isa(), doctest::Contains("is unknown; expected"),
                       std::invalid_argument);
}

}  // namespace
}  // namespace crisp
