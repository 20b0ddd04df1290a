// How the work of a run is cut and handed out where several runs share the threads. Arithmetic
// alone: ort_common.h says where the share comes from, and a result never depends on it.
//
// A share is the number of threads that a run may use; 0, or less, is all of its session's.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <algorithm>

namespace crisp {

// Into how many batches `tasks` tasks go, each run by one thread: as many as there are tasks where
// a run has every thread, so that each takes the next as it gets free. One batch needs no thread
// but the caller's.
inline size_t batches_of(int32_t share, size_t tasks) {
  return share <= 0 ? tasks : std::min(static_cast<size_t>(share), tasks);
}

// For how many threads work is cut on a machine with so many processors.
inline int64_t threads_to_cut_for(int32_t share, int64_t processors) {
  return share <= 0 ? processors : std::min<int64_t>(share, processors);
}

}  // namespace crisp
