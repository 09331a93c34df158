// Kernels that race, and those that just do not, for the watch over races to be tried on: racy NAME.
#include <cstdio>
#include <map>
#include <string>

#include "cuda/device.cuh"

namespace {

using namespace pkpo::cuda;

constexpr int kThreads = 2 * kWarp;
enum class Wait { none, shuffle, warp, block };

template <Wait wait>
__device__ void wait_for_others() {
  if (wait == Wait::shuffle) __shfl_sync(kAllLanes, 0, 0);
  if (wait == Wait::warp) __syncwarp();
  if (wait == Wait::block) __syncthreads();
}

// Every thread reads what the one `away` wrote; then writes where that one reads.
template <Wait before, Wait after, int away>
__global__ void read_of_others(int* out) {
  __shared__ int values[kThreads];
  const int thread = static_cast<int>(threadIdx.x), other = thread ^ away;
  values[thread] = thread;
  wait_for_others<before>();
  out[blockIdx.x * kThreads + thread] = values[other];
  wait_for_others<after>();
  values[thread] = 0;
}

template <int different>
__global__ void write_the_same(int* out) {
  __shared__ int value;
  value = 7 + different * static_cast<int>(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = value;
}

template <bool waits>
__global__ void count(int* out) {
  __shared__ int counter;
  if (threadIdx.x == 0) counter = 0;
  __syncthreads();
  atomicAdd(&counter, 1);
  if (waits) __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = counter;
}

template <bool own>
__global__ void write_bytes(int* out) {
  char* bytes = reinterpret_cast<char*>(out) + blockIdx.x * kThreads;
  bytes[threadIdx.x / (own ? 1 : 2)] = static_cast<char>(threadIdx.x);
}

template <bool own>
__global__ void write_in_blocks(int* out) {
  if (threadIdx.x == 0) out[own ? blockIdx.x : 0] = 1 + static_cast<int>(blockIdx.x);
}

template <Wait wait>
__global__ void copy(int* out) {
  __shared__ __align__(16) int values[4 * kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  copy_ahead(values + 4 * thread, out + 4 * thread);
  wait_for_copies();
  wait_for_others<wait>();
  out[4 * kThreads + blockIdx.x * kThreads + thread] = values[4 * (thread ^ 1)];
}

// sync_grid() without its parts.
template <bool block, bool fence>
__device__ void wait_for_grid(uint32_t* arrivals) {
  if (block) __syncthreads();
  if (threadIdx.x == 0) {
    if (fence) __threadfence();
    const uint32_t wanted = (atomicAdd(arrivals, 1u) / gridDim.x + 1) * gridDim.x;
    while (*static_cast<volatile uint32_t*>(arrivals) < wanted) __nanosleep(20);
    if (fence) __threadfence();
  }
  __syncthreads();
}
template <int how>
__global__ void exchange_between_blocks(int* out) {
  uint32_t* arrivals = reinterpret_cast<uint32_t*>(out) + 1000;
  for (int turn = 0; turn < 2; ++turn) {
    const int other = (blockIdx.x + 1) % gridDim.x * kThreads + static_cast<int>(threadIdx.x) / 2;
    out[blockIdx.x * kThreads + threadIdx.x] = turn;
    if (how == 0) sync_grid(arrivals);
    if (how == 1) __syncthreads();
    if (how == 2) wait_for_grid<false, true>(arrivals);
    if (how == 3) wait_for_grid<true, false>(arrivals);
    out[500 + blockIdx.x * kThreads + threadIdx.x] = out[other];
    if (how != 4) sync_grid(arrivals);
  }
}

int memory[2000];

// Three blocks, one after another or at once; twice.
template <auto kernel>
void run(bool at_once) {
  for (int turn = 0; turn < 2; ++turn) {
    bool is_done = true;
    if (at_once) {
      launch_cooperatively<kernel>(3, kThreads, 0, nullptr, &is_done, static_cast<int*>(memory));
    } else {
      launch<kernel>(3, kThreads, 0, nullptr, static_cast<int*>(memory));
    }
  }
}

}  // namespace

int main(int, char** arguments) {
  constexpr Wait none = Wait::none, shuffle = Wait::shuffle, warp = Wait::warp, block = Wait::block;
  const std::map<std::string, void (*)(bool)> kernels{
      {"lanes", run<read_of_others<warp, warp, 1>>},
      {"lanes, no barrier", run<read_of_others<none, warp, 1>>},
      {"lanes, a shuffle", run<read_of_others<shuffle, warp, 1>>},
      {"lanes, written too early", run<read_of_others<warp, none, 1>>},
      {"warps", run<read_of_others<block, block, kWarp>>},
      {"warps, a barrier of each", run<read_of_others<warp, block, kWarp>>},
      {"warps, written too early", run<read_of_others<block, warp, kWarp>>},
      {"the same written", run<write_the_same<0>>},
      {"others written", run<write_the_same<1>>},
      {"counted", run<count<true>>},
      {"counted, read too early", run<count<false>>},
      {"bytes", run<write_bytes<true>>},
      {"bytes of two", run<write_bytes<false>>},
      {"blocks", run<write_in_blocks<true>>},
      {"blocks, one place", run<write_in_blocks<false>>},
      {"copies", run<copy<warp>>},
      {"copies, of others", run<copy<none>>},
      {"grid", run<exchange_between_blocks<0>>},
      {"grid, barriers of blocks", run<exchange_between_blocks<1>>},
      {"grid, not all of a block", run<exchange_between_blocks<2>>},
      {"grid, no fence", run<exchange_between_blocks<3>>},
      {"grid, never", run<exchange_between_blocks<4>>},
  };
  const std::string name = arguments[1];
  kernels.at(name)(name.starts_with("grid"));
  std::puts("no race");
}
