// What is done to tiles (tiles.cuh) is done in passes over all of them, each of which needs what the one before left. A
// pass is a launch of its own, with as many threads as serve it best; or all are in one cooperative launch, whose
// blocks wait for each other between passes.
#pragma once

#include "cuda/device.cuh"

namespace pkpo::cuda {

// A pass has run<L>(arguments), what a block of L threads does, and kShared<L>, its bytes of dynamic shared memory. As
// a launch of its own it has so many threads, and so many blocks for a multiprocessor, 0 where the compiler may choose.
template <int threads, int blocks = 0>
struct Pass {
  static constexpr int kThreads = threads, kBlocks = blocks;
  template <int L>
  static constexpr size_t kShared = 0;
};

template <class Pass, class... Arguments>
__global__ void __launch_bounds__(Pass::kThreads, Pass::kBlocks) run_pass(Arguments... arguments) {
  Pass::template run<Pass::kThreads>(arguments...);
}

// The ways: each pass<Pass>(arguments).
struct InLaunches {
  int64_t blocks;
  Stream stream;
  cudaError_t error = cudaSuccess;

  template <class Pass, class... Arguments>
  void pass(const Arguments&... arguments) {
    if (error != cudaSuccess) return;
    error = launch<run_pass<Pass, Arguments...>>(blocks, Pass::kThreads, Pass::template kShared<Pass::kThreads>, stream,
                                                 arguments...);
  }
};

template <int L>
struct InOneLaunch {
  uint32_t* arrivals;  // see sync_grid()

  template <class Pass, class... Arguments>
  __device__ void pass(const Arguments&... arguments) const {
    Pass::template run<L>(arguments...);
    sync_grid(arrivals);
  }
};

}  // namespace pkpo::cuda
