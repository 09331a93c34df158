#include "cuda/large.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {
namespace {

__global__ void __launch_bounds__(kListers, 1) find_ends(Batch batch, uint32_t smallest, Tiles tiles) {
  find_ends_of_stretches(batch, smallest, tiles);
}

// A block that is alone finds ends itself.
__global__ void __launch_bounds__(kListers, 1) list_tiles(Batch batch, uint32_t smallest, Tiles tiles) {
  if (gridDim.x == 1) {
    find_ends_of_stretches(batch, smallest, tiles);
    __syncthreads();
  }
  list_tiles_of_stretches(batch, smallest, tiles);
}

// Lists the tiles of groups of one size, whose numbers follow from it.
__global__ void __launch_bounds__(kListers, 1) list_tiles_of_rows(Batch batch, Tiles tiles) {
  const uint32_t width = static_cast<uint32_t>(batch.width), each = (width - 1) / kTile + 1;
  const int64_t count = batch.count * each, chunks = (each - 1) / kChunk + 1;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *tiles.count = count;
    *tiles.chunk_count = batch.count * chunks;
  }
  for (int64_t i = int64_t{blockIdx.x} * kListers + threadIdx.x; i < count; i += int64_t{gridDim.x} * kListers) {
    const int64_t group = i / each, slot = group * each;
    const uint32_t which = static_cast<uint32_t>(i - slot);
    tiles.tiles[i] = {group, group * width, width, which * kTile, slot};
    if (which % kChunk == 0) tiles.chunks[group * chunks + which / kChunk] = i;
  }
}

// Enqueues the listing.
cudaError_t list(const Batch& batch, uint32_t smallest, const Tiles& tiles, Stream stream) {
  if (!batch.offsets.data) {
    return launch<list_tiles_of_rows>((most_tiles(batch, smallest) - 1) / kListers + 1, kListers, 0, stream, batch,
                                      tiles);
  }
  const int64_t blocks = (stretches_of(batch) - 1) / (kListers / kWarp) + 1;
  cudaError_t error = cudaSuccess;
  if (blocks > 1) error = launch<find_ends>(blocks, kListers, 0, stream, batch, smallest, tiles);
  if (error == cudaSuccess) error = launch<list_tiles>(blocks, kListers, 0, stream, batch, smallest, tiles);
  return error;
}

template <class V, bool usual>
cudaError_t launch_passes(const Call& call, uint32_t smallest, void* memory, Stream stream) {
  Workspace<V> workspace;
  lay_out(call, smallest, static_cast<char*>(memory), workspace);
  InLaunches way{most_tiles(call.batch, smallest), stream, list(call.batch, smallest, workspace.tiles, stream)};
  const bool placed = placed_apart(call.batch);
  if (call.op == Op::backward) {
    sort_and_weigh<V, usual, true>(call, workspace, placed, way);
  } else {
    sort_and_weigh<V, usual, false>(call, workspace, placed, way);
  }
  return way.error;
}

}  // namespace

cudaError_t run_large(const Call& call, uint32_t smallest, void* workspace, Stream stream) {
  if (is_wide(call.batch.dtype)) return launch_passes<double, false>(call, smallest, workspace, stream);
  return is_usual(call) ? launch_passes<float, true>(call, smallest, workspace, stream)
                        : launch_passes<float, false>(call, smallest, workspace, stream);
}

size_t large_workspace(const Call& call, uint32_t smallest) {
  Workspace<double> wide;
  Workspace<float> narrow;
  return is_wide(call.batch.dtype) ? lay_out(call, smallest, nullptr, wide) : lay_out(call, smallest, nullptr, narrow);
}

}  // namespace pkpo::cuda
