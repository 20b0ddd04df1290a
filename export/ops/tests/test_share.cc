// How work is cut and handed out, and how many processors it is cut for.
#include <doctest/doctest.h>
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

#include "processors.h"
#include "share.h"

namespace crisp {
namespace {

TEST_CASE("a run with every thread has a batch for each task") {
  for (const int32_t all : {0, -1}) {
    CHECK(batches_of(all, 0) == 0);
    CHECK(batches_of(all, 1) == 1);
    CHECK(batches_of(all, 7) == 7);
    CHECK(threads_to_cut_for(all, 8) == 8);
  }
}

TEST_CASE("a run with a share has as many batches, and never more than tasks") {
  CHECK(batches_of(1, 7) == 1);
  CHECK(batches_of(2, 7) == 2);
  CHECK(batches_of(7, 7) == 7);
  CHECK(batches_of(8, 7) == 7);
  CHECK(batches_of(INT32_MAX, 7) == 7);
  CHECK(batches_of(2, 1) == 1);
  CHECK(batches_of(2, 0) == 0);
}

TEST_CASE("work is cut for the share, and never for more threads than processors") {
  CHECK(threads_to_cut_for(1, 8) == 1);
  CHECK(threads_to_cut_for(2, 8) == 2);
  CHECK(threads_to_cut_for(8, 8) == 8);
  CHECK(threads_to_cut_for(9, 8) == 8);
}

#if defined(__linux__)
TEST_CASE("processors are those that the process may run on") {
  cpu_set_t before;
  REQUIRE(sched_getaffinity(getpid(), sizeof(before), &before) == 0);
  CHECK(processors() == CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  REQUIRE(sched_setaffinity(getpid(), sizeof(one), &one) == 0);
  CHECK(processors() == 1);
  REQUIRE(sched_setaffinity(getpid(), sizeof(before), &before) == 0);
}
#endif

}  // namespace
}  // namespace crisp
