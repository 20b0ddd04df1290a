// Memory that a thread keeps: aligned, as large as asked, given back where it is large.
#include <doctest/doctest.h>

#include <cstring>

#include "thread_memory.h"

namespace crisp {
namespace {

TEST_CASE("memory is aligned, and kept until more is needed") {
  ThreadMemory memory;
  std::byte* const first = memory.take(1000);
  REQUIRE(first != nullptr);
  CHECK(reinterpret_cast<uintptr_t>(first) % 64 == 0);
  CHECK(memory.take(10) == first);
  CHECK(memory.take(1000) == first);
  std::byte* const second = memory.take(100000);
  REQUIRE(second != nullptr);
  CHECK(reinterpret_cast<uintptr_t>(second) % 64 == 0);
  std::memset(second, 1, 100000);  // under AddressSanitizer
  CHECK(ThreadMemory().take(0) != nullptr);
}

TEST_CASE("what is large is given back, and can be had again") {
  ThreadMemory memory;
  std::byte* const first = memory.take(1000);
  memory.release_beyond(2000);
  CHECK(memory.take(1000) == first);
  memory.release_beyond(500);
  std::byte* const again = memory.take(1000);
  REQUIRE(again != nullptr);
  std::memset(again, 1, 1000);
}

#if !defined(CRISP_SANITIZE)
TEST_CASE("memory that is not to be had is null, and an exception where nobody may look") {
  constexpr int64_t kTooMuch = int64_t{1} << 60;
  ThreadMemory memory;
  CHECK(memory.take(1000) != nullptr);
  CHECK(memory.take(kTooMuch) == nullptr);
  CHECK(memory.take(1000) != nullptr);
  CHECK_THROWS_AS(allocate(kTooMuch), std::bad_alloc);
}
#endif

}  // namespace
}  // namespace crisp
