#include "processors.h"

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <thread>

namespace crisp {

int64_t processors() {
#if defined(__linux__)
  // Those of the main thread: the calling one may have been given a single processor of its own.
  // Fails on machines with more than 1,024.
  cpu_set_t allowed;
  if (sched_getaffinity(getpid(), sizeof(allowed), &allowed) == 0) {
    return std::max(1, CPU_COUNT(&allowed));
  }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace crisp
