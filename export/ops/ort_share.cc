// What the callers of this library may tell it.
#include "ort_common.h"

namespace crisp {

// Lets every operator that starts from now on use `threads` threads, or all of its session's (0).
extern "C" __attribute__((visibility("default"))) void CrispShare(int32_t threads) {
  share_of_a_run.store(threads, std::memory_order_relaxed);
}

}  // namespace crisp
