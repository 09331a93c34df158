// Large groups in batches whose groups differ in size, of so few samples that launches, not memory, would take the
// time: all passes (large.cuh) in one launch. What training has are hundreds of small groups; that none is large is
// known on the device alone, and shows here once the grid has waited for itself once.
#pragma once

#include <algorithm>

#include "cuda/large.cuh"

namespace pkpo::cuda {

// Batches that may have more tiles are done pass by pass. One turn of a block joins what these leave, whichever way: so
// the bits are the same.
constexpr int64_t kFewTiles = kJoiners;

// The most shared memory that a pass takes.
template <class V, bool gradients>
constexpr size_t shared_at_once =
    std::max(ScatterDigits<V, false>::template kShared<kTeam>,
             gradients ? ScanGradients<V>::template kShared<kTeam> : FinishTiles<V, false>::template kShared<kTeam>);

// Groups of `smallest` samples and more; smaller ones are left alone.
template <class V, bool gradients>
__global__ void __launch_bounds__(kTeam, 1)
    large_groups_at_once(Call call, uint32_t smallest, Workspace<V> workspace, bool placed) {
  const Batch& batch = call.batch;
  const Tiles& tiles = workspace.tiles;
  find_ends_of_stretches(batch, smallest, tiles);
  sync_grid(tiles.arrivals);
  bool is_any = false;
  for (int s = static_cast<int>(threadIdx.x); s < stretches_of(batch); s += kTeam) is_any = is_any || tiles.ends[s];
  if (!__syncthreads_or(is_any)) return;  // in every block, since all look at the same
  list_tiles_of_stretches(batch, smallest, tiles);
  sync_grid(tiles.arrivals);
  const InOneLaunch<kTeam> way{tiles.arrivals};
  sort_and_weigh<V, false, gradients>(call, workspace, placed, way);
}

}  // namespace pkpo::cuda
