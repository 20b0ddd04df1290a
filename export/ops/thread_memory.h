// Memory aligned to a cache line, and what a thread keeps of it from one task to the next: fresh
// memory costs a page fault every 4 kB.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

namespace crisp {

using Aligned = std::unique_ptr<void, decltype(&free)>;

// `bytes` of it, or null where there is none to be had.
inline Aligned try_allocate(int64_t bytes) {
  constexpr int64_t kLine = 64;
  const int64_t whole = (std::max<int64_t>(bytes, 1) + kLine - 1) / kLine * kLine;
  return {std::aligned_alloc(kLine, static_cast<size_t>(whole)), &free};
}

// The same, or std::bad_alloc.
inline Aligned allocate(int64_t bytes) {
  Aligned memory = try_allocate(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// To be made `thread_local`, one for each use, so that none is lent twice at once.
class ThreadMemory {
 public:
  // At least so many bytes, their contents undefined, valid until the next call; null where there
  // are none to be had.
  std::byte* take(int64_t bytes) {
    if (bytes > size_ || memory_ == nullptr) {
      const int64_t wanted = bytes + bytes / 4;  // the next text may be a little longer
      memory_.reset();
      memory_ = try_allocate(wanted);
      size_ = memory_ == nullptr ? 0 : wanted;
    }
    return static_cast<std::byte*>(memory_.get());
  }

  void release_beyond(int64_t bytes) {
    if (size_ <= bytes) return;
    memory_.reset();
    size_ = 0;
  }

 private:
  Aligned memory_{nullptr, &free};
  int64_t size_ = 0;
};

}  // namespace crisp
