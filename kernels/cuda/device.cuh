// What the kernels take from CUDA, in one place: intrinsics under their CUDA names, launches, element types in memory.
// Compiled for the CPU (tests/cuda_on_cpu) the same names have a lockstep meaning there.
#pragma once

#if defined(PKPO_CUDA_ON_CPU)
#include "cuda_on_cpu.h"
#else
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <atomic>
#endif

#include <cstdint>
#include <type_traits>

#include "cuda/pkpo.h"

namespace pkpo::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

#if !defined(PKPO_CUDA_ON_CPU)
using Stream = cudaStream_t;

__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char pkpo_shared[];
  return pkpo_shared;
}

// Blocks of `kernel` that the current device holds at once; asked for once for each kernel and device, as is the right
// to more than 48 KB of shared memory.
template <auto kernel>
cudaError_t resident_blocks(int block, size_t shared, int64_t* blocks) {
  constexpr int kDevices = 64;
  static std::atomic<int64_t> known[kDevices];
  int device = 0, processors = 0, each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  if (device < kDevices && (*blocks = known[device].load(std::memory_order_acquire)) != 0) return cudaSuccess;
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess && shared > 48 * 1024) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  }
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, block, shared);
  if (error != cudaSuccess) return error;
  *blocks = int64_t{processors} * (each > 0 ? each : 1);
  if (device < kDevices) known[device].store(*blocks, std::memory_order_release);
  return cudaSuccess;
}

// Can the device hold so many blocks at once?
template <auto kernel>
cudaError_t fits_at_once(int64_t wanted, int block, size_t shared, bool* fits) {
  int64_t most = 0;
  const cudaError_t error = resident_blocks<kernel>(block, shared, &most);
  *fits = wanted <= most;
  return error;
}

// The most that a block may ask for on the current device.
inline cudaError_t shared_memory_of_a_block(size_t* bytes) {
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  *bytes = static_cast<size_t>(most);
  return error;
}

// As many blocks as there is work for and the device holds.
template <auto kernel>
cudaError_t grid_for(int64_t wanted, int block, size_t shared, int64_t* grid) {
  const cudaError_t error = resident_blocks<kernel>(block, shared, grid);
  if (*grid > wanted) *grid = wanted;
  return error;
}

template <auto kernel, class... Arguments>
cudaError_t launch(int64_t wanted, int block, size_t shared, Stream stream, const Arguments&... arguments) {
  if (wanted < 1) return cudaSuccess;
  int64_t grid = 0;
  const cudaError_t error = grid_for<kernel>(wanted, block, shared, &grid);
  if (error != cudaSuccess) return error;
  kernel<<<static_cast<unsigned>(grid), block, shared, stream>>>(arguments...);
  return cudaGetLastError();
}

// The same for a kernel whose blocks wait for each other, of these very arguments. Says whether the device does that:
// in a part of it that another process or context left there may be no room.
template <auto kernel, class... Arguments>
cudaError_t launch_cooperatively(int64_t wanted, int block, size_t shared, Stream stream, bool* is_done,
                                 const Arguments&... arguments) {
  static_assert(std::is_same_v<decltype(kernel), void (*)(Arguments...)>);
  int64_t grid = 0;
  cudaError_t error = grid_for<kernel>(wanted, block, shared, &grid);
  if (error != cudaSuccess) return error;
  void* pointers[] = {const_cast<Arguments*>(&arguments)...};
  const void* function = reinterpret_cast<const void*>(kernel);  // CUDA 12 takes no other
  error = cudaLaunchCooperativeKernel(function, static_cast<unsigned>(grid), block, pointers, shared, stream);
  *is_done = error != cudaErrorCooperativeLaunchTooLarge && error != cudaErrorNotSupported;
  if (*is_done) return error;
  cudaGetLastError();  // not to be found by the next who asks
  return cudaSuccess;
}

// The same number, but the compiler does not know: what depends on it is computed where it is needed, not once before a
// loop and kept in registers that the loop has other use for.
__device__ inline uint32_t computed_here(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

// The thread's number in its block, read anew, so that what follows from it takes no registers between.
__device__ inline uint32_t thread_here() {
  uint32_t thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// 1 / b to 20 bits, an instruction.
__device__ inline double about_one_over(double b) {
  double inverse;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(inverse) : "d"(b));
  return inverse;
}

// 16 bytes from device to shared memory, there for this thread once it has waited.
__device__ inline void copy_ahead(void* to, const void* from) { __pipeline_memcpy_async(to, from, 16); }
__device__ inline void wait_for_copies() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

// (a & mask) | b and (a & mask) ^ b, an instruction each.
__device__ inline uint32_t and_or(uint32_t a, uint32_t mask, uint32_t b) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "r"(mask), "r"(b));
  return result;
}
__device__ inline uint32_t and_xor(uint32_t a, uint32_t mask, uint32_t b) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(result) : "r"(a), "r"(mask), "r"(b));
  return result;
}

// The lanes of the warp in whose number the same bit is set, or clear, as in this one's. Written by hand since the
// compiler would test the bit twice.
__device__ inline uint32_t lanes_alike(uint32_t number, uint32_t bit) {
  uint32_t lanes;
  asm volatile(
      "{\n"
      "  .reg .pred is_set;\n"
      "  and.b32 %0, %1, %2;\n"
      "  setp.ne.u32 is_set, %0, 0;\n"
      "  vote.sync.ballot.b32 %0, is_set, 0xffffffff;\n"
      "  @!is_set not.b32 %0, %0;\n"
      "}"
      : "=r"(lanes)
      : "r"(number), "r"(bit));
  return lanes;
}

__device__ inline float float_of_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ inline uint16_t half_of_float(float value) { return __half_as_ushort(__float2half_rn(value)); }
#endif

// Until all threads of the grid have come here; what they wrote is seen by all of them. `arrivals`: of blocks, so far;
// 0 before the launch. By hand, since with the library's own barrier ptxas 13.0 fails for sm_100 (C7600).
__device__ inline void sync_grid(uint32_t* arrivals) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const uint32_t wanted = (atomicAdd(arrivals, 1u) / gridDim.x + 1) * gridDim.x;
    while (*static_cast<volatile uint32_t*>(arrivals) < wanted) __nanosleep(20);
    __threadfence();
  }
  __syncthreads();
}

// bfloat16 is the upper half of a float32; rounded to nearest, ties to even.
__device__ inline float float_of_bfloat(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
__device__ inline uint16_t bfloat_of_float(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (value != value) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <class V>
__device__ inline V infinity() {
  if constexpr (sizeof(V) == 8)
    return __longlong_as_double(0x7ff0000000000000ll);
  else
    return __uint_as_float(0x7f800000u);
}

template <class V>
__device__ inline V not_a_number() {
  if constexpr (sizeof(V) == 8)
    return __longlong_as_double(0x7ff8000000000000ll);
  else
    return __uint_as_float(0x7fc00000u);
}

// The calls that training makes have kernels of their own, compiled without what other baselines and types need: fewer
// registers and less code.
inline bool is_usual(const Call& call) {
  return call.op == Op::transform && call.form == Form::loo_1 && call.batch.dtype == DType::float32;
}
__device__ inline void say_usual(Call& call) {
  call.form = Form::loo_1;
  call.batch.dtype = DType::float32;
}

template <class V>
__device__ inline V load_element(const void* from, DType dtype, int64_t i) {
  if constexpr (sizeof(V) == 8) {
    switch (dtype) {
      case DType::int32:
        return static_cast<V>(static_cast<const int32_t*>(from)[i]);
      case DType::int64:
        return static_cast<V>(static_cast<const int64_t*>(from)[i]);
      default:
        return static_cast<const V*>(from)[i];
    }
  } else {
    switch (dtype) {
      case DType::float16:
        return float_of_half(static_cast<const uint16_t*>(from)[i]);
      case DType::bfloat16:
        return float_of_bfloat(static_cast<const uint16_t*>(from)[i]);
      case DType::boolean:  // any byte but 0 is true
        return static_cast<const uint8_t*>(from)[i] != 0 ? V(1) : V(0);
      case DType::uint8:
        return static_cast<V>(static_cast<const uint8_t*>(from)[i]);
      case DType::int8:
        return static_cast<V>(static_cast<const int8_t*>(from)[i]);
      case DType::int16:
        return static_cast<V>(static_cast<const int16_t*>(from)[i]);
      default:
        return static_cast<const V*>(from)[i];
    }
  }
}

// The result for rewards of `dtype`: the same type if that is a floating one, else float32. A zero is never negative.
template <class V>
__device__ inline void store_element(void* to, DType dtype, int64_t i, V value) {
  switch (dtype) {
    case DType::float64:
      static_cast<double*>(to)[i] = static_cast<double>(value) + 0.0;
      break;
    case DType::float16:
      static_cast<uint16_t*>(to)[i] = half_of_float(static_cast<float>(value) + 0.0f);
      break;
    case DType::bfloat16:
      static_cast<uint16_t*>(to)[i] = bfloat_of_float(static_cast<float>(value) + 0.0f);
      break;
    default:
      static_cast<float*>(to)[i] = static_cast<float>(value) + 0.0f;
  }
}

__device__ inline int64_t index_at(const Indices& indices, int64_t i) {
  i *= indices.stride;
  return indices.is_int64 ? static_cast<const int64_t*>(indices.data)[i] : static_cast<const int32_t*>(indices.data)[i];
}

// Where a group lies and how it is weighed; never outside [0, samples).
struct Extent {
  int64_t begin;
  uint32_t size;
};

__device__ inline Extent extent_of(const Batch& batch, int64_t g) {
  if (!batch.offsets.data) return {g * batch.width, static_cast<uint32_t>(batch.width)};
  int64_t begin = index_at(batch.offsets, g), end = index_at(batch.offsets, g + 1);
  begin = begin < 0 ? 0 : begin > batch.samples ? batch.samples : begin;
  end = end < begin ? begin : end > batch.samples ? batch.samples : end;
  return {begin, static_cast<uint32_t>(end - begin)};
}

__device__ inline int64_t k_of(const Batch& batch, int64_t g) {
  return batch.k.data ? index_at(batch.k, g) : batch.k_value;
}

__device__ inline bool has_one_k(const Batch& batch) { return !batch.k.data || batch.k.stride == 0; }

// k as it is used where n samples are present; 0 where the group has no answer but zeros.
__device__ inline uint32_t clamp_k(int64_t k, uint32_t n, Form form) {
  const int64_t largest = form == Form::loo ? int64_t{n} - 1 : int64_t{n};
  k = k < 1 ? 1 : k;
  k = k < largest ? k : largest;
  return k < 0 ? 0u : static_cast<uint32_t>(k);
}

}  // namespace pkpo::cuda
