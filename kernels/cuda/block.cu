#include "cuda/block.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {
namespace {

template <class V, int L, int I, Op op, bool usual>
cudaError_t launch_block(const Call& call, uint32_t smallest, Stream stream) {
  return launch<block_groups<V, L, I, op, usual>>(call.batch.count, L, BlockMemory<V, L, I, op>::all, stream, call,
                                                  smallest);
}

template <class V, Op op, bool usual>
cudaError_t by_room(const Call& call, int64_t room, uint32_t smallest, Stream stream) {
  if constexpr (sizeof(V) == 4 && op != Op::backward) {
    if (room <= 1024) return launch_block<V, 64, 16, op, usual>(call, smallest, stream);
    if (room <= 2048) return launch_block<V, 128, 16, op, usual>(call, smallest, stream);
    if (room <= 4096) return launch_block<V, 256, 16, op, usual>(call, smallest, stream);
    return launch_block<V, 512, 16, op, usual>(call, smallest, stream);
  } else {
    if (room <= 512) return launch_block<V, 64, 8, op, usual>(call, smallest, stream);
    if (room <= 1024) return launch_block<V, 128, 8, op, usual>(call, smallest, stream);
    if (room <= 2048) return launch_block<V, 256, 8, op, usual>(call, smallest, stream);
    return launch_block<V, 512, 8, op, usual>(call, smallest, stream);
  }
}

}  // namespace

cudaError_t run_block(const Call& call, int64_t room, uint32_t smallest, Stream stream) {
  return by_kind(call,
                 [&]<class V, Op op, bool usual>() { return by_room<V, op, usual>(call, room, smallest, stream); });
}

}  // namespace pkpo::cuda
