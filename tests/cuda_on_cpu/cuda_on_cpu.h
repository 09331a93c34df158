// The CUDA kernels on the CPU, to be tested where there is no GPU: every name that kernels/cuda takes from CUDA, with a
// meaning for g++. A thread of a block is a fiber with a stack of its own; it runs until it must wait for others (a
// shuffle, a vote, a barrier), then the next one runs. So the lanes of a warp keep step exactly where the code says
// that they do, and nowhere else: code that forgets a barrier reads what is not yet written. Blocks run one after
// another, but at once where they wait for each other, each in a thread of its own. A wait that can never end, since
// threads of the warp or block have left or wait elsewhere, stops the process with a message.
//
// Compiled for it, every access to memory is watched for races (races.h).
//
// Shared memory is static memory, or for dynamic_shared() memory of just the size asked for, so that AddressSanitizer
// sees what is read or written behind it. That is filled with noise before a block begins.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/half.h"

#define __global__
#define __host__
#define __device__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One for all blocks that run one after another. AddressSanitizer sees what is behind static memory, but not behind a
// thread's: there a grid that waits for itself is one block.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

struct dim3 {
  unsigned x = 1;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorNoDevice = 100;
inline const char* cudaGetErrorString(cudaError_t) { return "an error"; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

namespace cuda_on_cpu {

extern thread_local dim3 thread_index, block_index, block_size, grid_size;

// Runs body() in blocks * threads fibers.
void run(unsigned blocks, unsigned threads, size_t dynamic_shared, const std::function<void()>& body);
// The same for up to three blocks that run at once, each in a thread of its own.
void run_at_once(unsigned blocks, unsigned threads, size_t dynamic_shared, const std::function<void()>& body);
unsigned char* dynamic_shared();

// Every lane of the warp gives 8 bytes; comes back when all have. What they gave stands until the next call but one.
const uint64_t* gather_in_warp(uint64_t value);
void wait_for_warp();
void wait_for_block();
void let_other_blocks_run();
int sum_in_block(int value);
void copy_later(void* to, const void* from);
void copy_now();

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace cuda_on_cpu

#define threadIdx cuda_on_cpu::thread_index
#define blockIdx cuda_on_cpu::block_index
#define blockDim cuda_on_cpu::block_size
#define gridDim cuda_on_cpu::grid_size

inline void check_mask(unsigned mask) {
  if (mask != 0xffffffffu) std::fprintf(stderr, "a mask of some lanes is not supported\n"), std::abort();
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  check_mask(mask);
  return cuda_on_cpu::from_bits<T>(cuda_on_cpu::gather_in_warp(cuda_on_cpu::to_bits(value))[lane & 31]);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x & 31) ^ lanes);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  return __shfl_sync(mask, value, lane < by ? lane : lane - by);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by) {
  const int lane = static_cast<int>(threadIdx.x & 31);
  return __shfl_sync(mask, value, lane + by > 31 ? lane : lane + by);
}
template <class T>
T atomicAdd(T* to, std::type_identity_t<T> value) {
  return std::atomic_ref(*to).fetch_add(value);
}

inline unsigned __ballot_sync(unsigned mask, bool is) {
  check_mask(mask);
  const uint64_t* all = cuda_on_cpu::gather_in_warp(is);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(all[lane]) << lane;
  return bits;
}
inline int __any_sync(unsigned mask, bool is) { return __ballot_sync(mask, is) != 0; }
inline int __all_sync(unsigned mask, bool is) { return __ballot_sync(mask, is) == 0xffffffffu; }
inline void __syncwarp() { cuda_on_cpu::wait_for_warp(); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __nanosleep(unsigned) { cuda_on_cpu::let_other_blocks_run(); }
inline void __syncthreads() { cuda_on_cpu::wait_for_block(); }
inline int __syncthreads_or(bool is) { return cuda_on_cpu::sum_in_block(is) != 0; }

inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return std::bit_cast<double>(bits); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
using std::fabs;
using std::fma;
// As CUDA has them: a zero without a sign is the larger one.
inline float fminf(float a, float b) { return a == b ? (std::signbit(a) ? a : b) : std::fmin(a, b); }
inline float fmaxf(float a, float b) { return a == b ? (std::signbit(a) ? b : a) : std::fmax(a, b); }

namespace pkpo::cuda {

using Stream = void*;

inline uint32_t computed_here(uint32_t value) { return value; }
inline uint32_t thread_here() { return threadIdx.x; }

// As a GPU has it: the lower half of the bits is 0.
inline double about_one_over(double b) {
  return std::bit_cast<double>(std::bit_cast<uint64_t>(1 / b) & 0xffffffff00000000u);
}

inline void copy_ahead(void* to, const void* from) { cuda_on_cpu::copy_later(to, from); }
inline void wait_for_copies() { cuda_on_cpu::copy_now(); }

inline uint32_t and_or(uint32_t a, uint32_t mask, uint32_t b) { return (a & mask) | b; }
inline uint32_t and_xor(uint32_t a, uint32_t mask, uint32_t b) { return (a & mask) ^ b; }

inline uint32_t lanes_alike(uint32_t number, uint32_t bit) {
  const bool is_set = number & bit;
  const uint32_t voted = __ballot_sync(0xffffffffu, is_set);
  return is_set ? voted : ~voted;
}

inline unsigned char* dynamic_shared() { return cuda_on_cpu::dynamic_shared(); }

// Where the kernels ask it, batches of up to so many blocks fit the device.
inline int64_t most_that_fit = 0;
template <auto kernel>
cudaError_t fits_at_once(int64_t wanted, int, size_t, bool* fits) {
  *fits = wanted <= most_that_fit;
  return cudaSuccess;
}

// That of an H200, or of a GPU with little of it.
inline bool has_little_shared_memory = false;
inline cudaError_t shared_memory_of_a_block(size_t* bytes) {
  *bytes = (has_little_shared_memory ? 99 : 227) * 1024;
  return cudaSuccess;
}

// A device that holds three blocks at once, but for batches that fit: blocks go on to further work, and there is more
// than one of them.
template <auto kernel, class... Arguments>
cudaError_t launch(int64_t wanted, int block, size_t shared, Stream, const Arguments&... arguments) {
  if (wanted < 1) return cudaSuccess;
  cuda_on_cpu::run(static_cast<unsigned>(wanted < 3 || wanted <= most_that_fit ? wanted : 3),
                   static_cast<unsigned>(block), shared, [&] { kernel(arguments...); });
  return cudaSuccess;
}

inline bool cooperates = true;
template <auto kernel, class... Arguments>
cudaError_t launch_cooperatively(int64_t wanted, int block, size_t shared, Stream, bool* is_done,
                                 const Arguments&... arguments) {
  *is_done = cooperates;
  if (!cooperates) return cudaSuccess;
  cuda_on_cpu::run_at_once(static_cast<unsigned>(wanted < 3 ? wanted : 3), static_cast<unsigned>(block), shared,
                           [&] { kernel(arguments...); });
  return cudaSuccess;
}

inline float float_of_half(uint16_t bits) {
  cpu::Float16 half;
  half.bits = bits;
  return static_cast<float>(half);
}
inline uint16_t half_of_float(float value) { return cpu::Float16(value).bits; }

}  // namespace pkpo::cuda
