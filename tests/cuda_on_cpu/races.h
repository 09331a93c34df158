// A watch over data races, for kernels compiled with g++ -fsanitize=thread, which calls a function for every access to
// memory (races.cpp has these functions; the sanitizer's own library is not used). Two accesses to one place, one of
// them a write, must not come from different threads unless something orders them: __syncwarp() the lanes of a warp,
// __syncthreads() the threads of a block; blocks only atomics with __threadfence() on both sides. Shuffles and votes
// wait, but order no memory. A race stops the process with a message that has both lines of code.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

constexpr unsigned kAtOnce = 3;  // blocks

// A step of each block that may run at once; what those did in steps before it is seen.
using Steps = std::array<uint32_t, kAtOnce>;

// What a thread of a block has waited for.
struct Watched {
  unsigned block = 0, number = 0;
  const char* stack = nullptr;
  size_t stack_size = 0;
  const unsigned char* shared = nullptr;  // of its block
  size_t shared_size = 0;
  uint32_t block_steps = 0, warp_steps = 0;  // barriers
  Steps seen{}, released{}, found{};         // found by atomics; seen after a fence

  bool is_own(const volatile void* address) const {
    return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(stack) < stack_size;
  }
  void pass_warp_barrier() { ++warp_steps; }
  void pass_block_barrier(const Steps& of_all) {
    ++block_steps;
    ++warp_steps;
    seen = of_all;
  }
};

inline void join(Steps& steps, const Steps& others) {
  for (unsigned i = 0; i < kAtOnce; ++i) steps[i] = steps[i] < others[i] ? others[i] : steps[i];
}

extern thread_local Watched* running;  // null outside of kernels

#if defined(CUDA_ON_CPU_RACES)
void watch_next_launch();
void watch_end_of_block();
void watch_copy(void* to, const void* from, size_t size, const void* caller);
#else
inline void watch_next_launch() {}
inline void watch_end_of_block() {}
inline void watch_copy(void*, const void*, size_t, const void*) {}
#endif

}  // namespace cuda_on_cpu
