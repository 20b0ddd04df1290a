// A kernel as a block program: what the threads of one block do between barriers, as functions that
// both nvcc and the host's compiler accept.
//
//   struct Program {
//     static constexpr int kThreads = 128;
//     struct Arguments { ... };  // plain data, passed by value: at most 4 kB
//     struct Registers { ... };  // what a thread keeps from one phase to the next
//     template <class Block>
//     CRISP_HD static void run(const Arguments& arguments, Block& block) {
//       block.each_thread([&](int thread, Registers& own) { ... });  // then a barrier
//       block.each_thread([&](int thread, Registers& own) { ... });
//     }
//   };
//
// On the device a phase is its body and __syncthreads(). On the host the bodies of a phase run one
// after the other, in a random order and over shared memory that is exactly as large as asked for:
// a phase in which a thread reads what another writes, or which leaves its memory, is found by
// comparing results and by AddressSanitizer. So the whole logic of a kernel is tested without a
// GPU; what is not, is the code under __CUDA_ARCH__ (multiply.h) and the launches (device.h).
//
// What decides between phases, outside each_thread, must follow from the arguments and from global
// memory that the kernel does not write, never from shared memory: all threads must agree on it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define CRISP_HD __host__ __device__ __forceinline__
#else
#define CRISP_HD inline
#endif

#ifdef __CUDA_ARCH__
#define CRISP_UNROLL _Pragma("unroll")
#define CRISP_NO_UNROLL _Pragma("unroll 1")
#else
#define CRISP_UNROLL
#define CRISP_NO_UNROLL
#endif

#ifndef __CUDACC__
#include <algorithm>
#include <random>
#include <vector>
#endif

namespace crisp {
namespace cuda {

constexpr int kWarp = 32;

CRISP_HD int round_up_to(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
CRISP_HD int least(int a, int b) { return a < b ? a : b; }
CRISP_HD int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

#ifdef __CUDACC__

template <class Program>
class DeviceBlock {
 public:
  __device__ __forceinline__ explicit DeviceBlock(char* shared) : shared_(shared) {}
  __device__ __forceinline__ int unit() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int head() const { return static_cast<int>(blockIdx.y); }
  __device__ __forceinline__ char* shared() const { return shared_; }

  template <class Phase>
  __device__ __forceinline__ void each_thread(Phase&& phase) {
    phase(static_cast<int>(threadIdx.x), registers_);
    __syncthreads();
  }

 private:
  char* shared_;
  typename Program::Registers registers_;
};

template <class Program>
__global__ void __launch_bounds__(Program::kThreads, 1)
    block_kernel(const __grid_constant__ typename Program::Arguments arguments) {
  extern __shared__ __align__(16) char shared[];
  DeviceBlock<Program> block(shared);
  Program::run(arguments, block);
}

#else

template <class Program>
class HostBlock {
 public:
  using Registers = typename Program::Registers;

  HostBlock(int unit, int head, size_t shared_bytes, std::minstd_rand& random)
      : unit_(unit),
        head_(head),
        // Every float in it is NaN at first: what is read before it is written must show.
        shared_(shared_bytes, static_cast<char>(0xff)),
        registers_(Program::kThreads),
        order_(Program::kThreads),
        random_(random) {
    for (int thread = 0; thread < Program::kThreads; ++thread) order_[thread] = thread;
  }
  int unit() const { return unit_; }
  int head() const { return head_; }
  char* shared() { return shared_.data(); }

  template <class Phase>
  void each_thread(Phase&& phase) {
    std::shuffle(order_.begin(), order_.end(), random_);
    for (const int thread : order_) phase(thread, registers_[thread]);
  }

 private:
  int unit_;
  int head_;
  std::vector<char> shared_;
  std::vector<Registers> registers_;
  std::vector<int> order_;
  std::minstd_rand& random_;
};

#endif

}  // namespace cuda
}  // namespace crisp
