#include "cuda/cooperative.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {
namespace {

template <class V, bool gradients>
cudaError_t launch_at_once(const Call& call, uint32_t smallest, void* memory, Stream stream, bool* is_done) {
  Workspace<V> workspace;
  lay_out(call, smallest, static_cast<char*>(memory), workspace);
  return launch_cooperatively<large_groups_at_once<V, gradients>>(most_tiles(call.batch, smallest), kTeam,
                                                                  shared_at_once<V, gradients>, stream, is_done, call,
                                                                  smallest, workspace, placed_apart(call.batch));
}

template <class V>
uint32_t* arrivals_of(const Call& call, uint32_t smallest, void* memory) {
  Workspace<V> workspace;
  lay_out(call, smallest, static_cast<char*>(memory), workspace);
  return workspace.tiles.arrivals;
}

}  // namespace

uint32_t* counter_at_once(const Call& call, uint32_t smallest, void* workspace) {
  if (!workspace || !call.batch.offsets.data || most_tiles(call.batch, smallest) > kFewTiles) return nullptr;
  return is_wide(call.batch.dtype) ? arrivals_of<double>(call, smallest, workspace)
                                   : arrivals_of<float>(call, smallest, workspace);
}

cudaError_t run_large_at_once(const Call& call, uint32_t smallest, void* workspace, Stream stream, bool* is_done) {
  if (!counter_at_once(call, smallest, workspace)) return cudaSuccess;
  const auto by_op = [&]<class V>() {
    return call.op == Op::backward ? launch_at_once<V, true>(call, smallest, workspace, stream, is_done)
                                   : launch_at_once<V, false>(call, smallest, workspace, stream, is_done);
  };
  return is_wide(call.batch.dtype) ? by_op.template operator()<double>() : by_op.template operator()<float>();
}

}  // namespace pkpo::cuda
