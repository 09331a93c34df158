#include "cuda/launches.h"
#include "cuda/ragged.cuh"

namespace pkpo::cuda {
namespace {

// 16 samples a thread where it need hold no more than a float32 for each, and groups are not so small that most of
// these were absent.
bool has_16(const Call& call) {
  return !is_wide(call.batch.dtype) && call.op != Op::backward && call.batch.samples / call.batch.count > 8;
}

template <class V, int I, Op op>
cudaError_t launch_ragged(const Call& call, Stream stream) {
  constexpr int64_t warps = kSmallBlock / kWarp;
  return launch<ragged_groups<V, I, op>>((call.batch.count + warps - 1) / warps, kSmallBlock, 0, stream, call);
}

template <class V, Op op>
cudaError_t by_mean(const Call& call, Stream stream) {
  if constexpr (sizeof(V) == 4 && op != Op::backward) {
    if (has_16(call)) return launch_ragged<V, 16, op>(call, stream);
  }
  return launch_ragged<V, 8, op>(call, stream);
}

template <class V>
cudaError_t by_op(const Call& call, Stream stream) {
  switch (call.op) {
    case Op::transform:
      return by_mean<V, Op::transform>(call, stream);
    case Op::max_at_k:
      return by_mean<V, Op::max_at_k>(call, stream);
    default:
      return by_mean<V, Op::backward>(call, stream);
  }
}

}  // namespace

cudaError_t run_ragged(const Call& call, Stream stream) {
  return is_wide(call.batch.dtype) ? by_op<double>(call, stream) : by_op<float>(call, stream);
}

int64_t ragged_room(const Call& call) { return has_16(call) ? kWarp * 16 : kWarp * 8; }

}  // namespace pkpo::cuda
