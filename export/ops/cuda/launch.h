// Starts a block program: on the device's stream, or, for the tests, here and now.
#pragma once

#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "block_program.h"
#include "device.h"
#include "segments.h"

namespace crisp {
namespace cuda {

#ifdef __CUDACC__

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

#endif

// `units` x `heads` blocks of `Program`. Throws where they cannot be started; what goes wrong while
// they run shows in a later call, as ever with CUDA.
template <class Program>
void launch(const Device& device, int64_t units, int64_t heads, size_t shared_bytes,
            const typename Program::Arguments& arguments) {
  static_assert(sizeof(arguments) <= 4096, "arguments of a kernel have 4 kB");
  if (units == 0 || heads == 0) return;
  const size_t most_bytes = most_shared_bytes();
  if (shared_bytes > most_bytes) {
    throw std::runtime_error("a block needs " + std::to_string(shared_bytes) +
                             " bytes of shared memory, and this GPU gives " +
                             std::to_string(most_bytes));
  }
  // The limits of a grid. 65,535 heads need no more than a sentence.
  if (units > std::numeric_limits<int32_t>::max() || heads > 65535) {
    throw std::invalid_argument("too many tokens or heads for one launch: " +
                                std::to_string(units) + " x " + std::to_string(heads));
  }
#ifdef __CUDACC__
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking) {
    // The limit is the kernel's, for all threads: one of this launch's size would fail a larger one
    // that another thread is about to make. Kernels have no shared memory but this.
    check(cudaFuncSetAttribute(block_kernel<Program>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(most_bytes)),
          "shared memory");
  }
  const dim3 grid(static_cast<unsigned>(units), static_cast<unsigned>(heads));
  block_kernel<Program>
      <<<grid, Program::kThreads, shared_bytes, static_cast<cudaStream_t>(device.stream)>>>(
          arguments);
  check(cudaGetLastError(), "launch");
#else
  (void)device;
  static thread_local std::minstd_rand random(17);
  for (int64_t head = heads; head-- > 0;) {  // the order must not matter
    for (int64_t unit = units; unit-- > 0;) {
      HostBlock<Program> block(static_cast<int>(unit), static_cast<int>(head), shared_bytes,
                               random);
      Program::run(arguments, block);
    }
  }
#endif
}

// An entry and how many units it has.
template <class Entry>
struct Units {
  Entry entry;
  int64_t count;
};

// Launches `Program` over all entries, as many a time as a table holds. `of_table`, where given, is
// told the entries of each launch before it starts, and returns its bytes of shared memory.
template <class Program, class Entry, class OfTable>
void launch_all(const Device& device, const std::vector<Units<Entry>>& entries, int64_t heads,
                typename Program::Arguments& arguments, const OfTable& shared_bytes) {
  for (size_t first = 0; first < entries.size(); first += kTableEntries) {
    Table<Entry>& table = arguments.table;
    table.count = 0;
    int64_t units = 0;
    while (table.count < kTableEntries && first + table.count < entries.size()) {
      const Units<Entry>& next = entries[first + table.count];
      table.entries[table.count] = next.entry;
      table.entries[table.count++].first_unit = static_cast<int32_t>(units);
      units += next.count;
    }
    launch<Program>(device, units, heads, shared_bytes(), arguments);
  }
}

}  // namespace cuda
}  // namespace crisp
