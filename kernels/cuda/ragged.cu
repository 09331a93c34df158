#include "cuda/launches.h"
#include "cuda/ragged.cuh"

namespace pkpo::cuda {
namespace {

// Samples a thread: no more than a group has on average, or most were absent.
int items(const Call& call) {
  const int64_t mean = call.batch.samples / call.batch.count;
  return !is_light(call) ? 8 : mean > 8 ? 16 : mean > 4 ? 8 : 4;
}

template <class V, int I, Op op, bool usual>
cudaError_t launch_ragged(const Call& call, uint32_t* counter, Stream stream) {
  constexpr int64_t warps = kSmallBlock / kWarp;
  return launch<ragged_groups<V, I, op, usual>>((call.batch.count + warps - 1) / warps, kSmallBlock, 0, stream, call,
                                                counter);
}

template <class V, Op op, bool usual>
cudaError_t by_mean(const Call& call, uint32_t* counter, Stream stream) {
  if constexpr (sizeof(V) == 4 && op != Op::backward) {
    const int each = items(call);
    if (each == 16) return launch_ragged<V, 16, op, usual>(call, counter, stream);
    if (each == 4) return launch_ragged<V, 4, op, usual>(call, counter, stream);
  }
  return launch_ragged<V, 8, op, usual>(call, counter, stream);
}

}  // namespace

cudaError_t run_ragged(const Call& call, uint32_t* counter, Stream stream) {
  return by_kind(call, [&]<class V, Op op, bool usual>() { return by_mean<V, op, usual>(call, counter, stream); });
}

int64_t ragged_room(const Call& call) { return kWarp * items(call); }

}  // namespace pkpo::cuda
