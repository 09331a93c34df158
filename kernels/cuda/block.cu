#include "cuda/block.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {
namespace {

template <class V, int L, Op op>
cudaError_t launch_block(const Call& call, uint32_t smallest, Stream stream) {
  return launch<block_groups<V, L, op>>(call.batch.count, L, BlockMemory<V, L, op>::all, stream, call, smallest);
}

template <class V, Op op>
cudaError_t by_room(const Call& call, int64_t room, uint32_t smallest, Stream stream) {
  if (room <= 512) return launch_block<V, 64, op>(call, smallest, stream);
  if (room <= 1024) return launch_block<V, 128, op>(call, smallest, stream);
  if (room <= 2048) return launch_block<V, 256, op>(call, smallest, stream);
  return launch_block<V, 512, op>(call, smallest, stream);
}

template <class V>
cudaError_t by_op(const Call& call, int64_t room, uint32_t smallest, Stream stream) {
  switch (call.op) {
    case Op::transform:
      return by_room<V, Op::transform>(call, room, smallest, stream);
    case Op::max_at_k:
      return by_room<V, Op::max_at_k>(call, room, smallest, stream);
    default:
      return by_room<V, Op::backward>(call, room, smallest, stream);
  }
}

}  // namespace

cudaError_t run_block(const Call& call, int64_t room, uint32_t smallest, Stream stream) {
  return is_wide(call.batch.dtype) ? by_op<double>(call, room, smallest, stream)
                                   : by_op<float>(call, room, smallest, stream);
}

}  // namespace pkpo::cuda
