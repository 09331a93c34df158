#include "cuda/launches.h"
#include "cuda/small.cuh"

namespace pkpo::cuda {
namespace {

template <int L>
int64_t blocks_for(const Call& call) {
  constexpr int64_t groups = kWarp / L * (kSmallBlock / kWarp);  // a block
  return (call.batch.count + groups - 1) / groups;
}

template <class V, int I, int L, Op op, bool usual>
cudaError_t launch_small(const Call& call, Stream stream) {
  return launch<small_groups<V, I, L, op, usual>>(blocks_for<L>(call), kSmallBlock, 0, stream, call);
}

// Groups of up to 16 L samples: 16 a thread take the fewest instructions; 8 a thread the shortest time where that is a
// warp's one tile.
template <class V, int L, Op op, bool usual>
cudaError_t launch_light(const Call& call, Stream stream) {
  bool is_one_turn = false;
  const int64_t blocks = blocks_for<2 * L>(call);
  const cudaError_t error = fits_at_once<small_groups<V, 8, 2 * L, op, usual>>(blocks, kSmallBlock, 0, &is_one_turn);
  if (error != cudaSuccess) return error;
  return is_one_turn ? launch_small<V, 8, 2 * L, op, usual>(call, stream)
                     : launch_small<V, 16, L, op, usual>(call, stream);
}

template <class V, Op op, bool usual>
cudaError_t by_width(const Call& call, Stream stream) {
  const int64_t room = call.batch.width;
  if (room <= 4) return launch_small<V, 4, 1, op, usual>(call, stream);
  if (room <= 8) return launch_small<V, 8, 1, op, usual>(call, stream);
  if constexpr (sizeof(V) == 4 && op != Op::backward) {
    if (room <= 16) return launch_light<V, 1, op, usual>(call, stream);
    if (room <= 32) return launch_light<V, 2, op, usual>(call, stream);
    if (room <= 64) return launch_light<V, 4, op, usual>(call, stream);
    if (room <= 128) return launch_light<V, 8, op, usual>(call, stream);
    if (room <= 256) return launch_light<V, 16, op, usual>(call, stream);
    return launch_small<V, 16, 32, op, usual>(call, stream);
  } else {
    if (room <= 16) return launch_small<V, 8, 2, op, usual>(call, stream);
    if (room <= 32) return launch_small<V, 8, 4, op, usual>(call, stream);
    if (room <= 64) return launch_small<V, 8, 8, op, usual>(call, stream);
    if (room <= 128) return launch_small<V, 8, 16, op, usual>(call, stream);
    return launch_small<V, 8, 32, op, usual>(call, stream);
  }
}

}  // namespace

cudaError_t run_small(const Call& call, Stream stream) {
  return by_kind(call, [&]<class V, Op op, bool usual>() { return by_width<V, op, usual>(call, stream); });
}

}  // namespace pkpo::cuda
