#include "cuda/launches.h"
#include "cuda/ragged.cuh"

namespace pkpo::cuda {
namespace {

// Not where groups are so small that most of 16 samples a thread were absent.
bool has_16(const Call& call) { return is_light(call) && call.batch.samples / call.batch.count > 8; }

template <class V, int I, Op op, bool usual>
cudaError_t launch_ragged(const Call& call, Stream stream) {
  constexpr int64_t warps = kSmallBlock / kWarp;
  return launch<ragged_groups<V, I, op, usual>>((call.batch.count + warps - 1) / warps, kSmallBlock, 0, stream, call);
}

template <class V, Op op, bool usual>
cudaError_t by_mean(const Call& call, Stream stream) {
  if constexpr (sizeof(V) == 4 && op != Op::backward) {
    if (has_16(call)) return launch_ragged<V, 16, op, usual>(call, stream);
  }
  return launch_ragged<V, 8, op, usual>(call, stream);
}

}  // namespace

cudaError_t run_ragged(const Call& call, Stream stream) {
  return by_kind(call, [&]<class V, Op op, bool usual>() { return by_mean<V, op, usual>(call, stream); });
}

int64_t ragged_room(const Call& call) { return has_16(call) ? kWarp * 16 : kWarp * 8; }

}  // namespace pkpo::cuda
