#include "cuda/launches.h"
#include "cuda/small.cuh"

namespace pkpo::cuda {
namespace {

template <class V, int I, int L, Op op>
cudaError_t launch_small(const Call& call, Stream stream) {
  constexpr int64_t groups = kWarp / L * (kSmallBlock / kWarp);  // a block
  return launch<small_groups<V, I, L, op>>((call.batch.count + groups - 1) / groups, kSmallBlock, 0, stream, call);
}

template <class V, Op op>
cudaError_t by_room(const Call& call, int64_t room, Stream stream) {
  if (room <= 4) return launch_small<V, 4, 1, op>(call, stream);
  if (room <= 8) return launch_small<V, 8, 1, op>(call, stream);
  if (room <= 16) return launch_small<V, 8, 2, op>(call, stream);
  if (room <= 32) return launch_small<V, 8, 4, op>(call, stream);
  if (room <= 64) return launch_small<V, 8, 8, op>(call, stream);
  if (room <= 128) return launch_small<V, 8, 16, op>(call, stream);
  return launch_small<V, 8, 32, op>(call, stream);
}

template <class V>
cudaError_t by_op(const Call& call, int64_t room, Stream stream) {
  switch (call.op) {
    case Op::transform:
      return by_room<V, Op::transform>(call, room, stream);
    case Op::max_at_k:
      return by_room<V, Op::max_at_k>(call, room, stream);
    default:
      return by_room<V, Op::backward>(call, room, stream);
  }
}

}  // namespace

cudaError_t run_small(const Call& call, int64_t room, Stream stream) {
  return is_wide(call.batch.dtype) ? by_op<double>(call, room, stream) : by_op<float>(call, room, stream);
}

}  // namespace pkpo::cuda
