// Groups of more samples than a block has room for, cut into tiles of 4,096. How many there are is known on the device
// alone, where they are listed; every launch goes over as many as there turn out to be, so that nothing waits for the
// host.
#pragma once

#include "cuda/team.cuh"

namespace pkpo::cuda {

constexpr int kTile = 4096;
constexpr int kChunk = 32;        // tiles of a group whose digits are summed up together (radix.cuh)
constexpr int kListers = 512;     // threads of a block that lists
constexpr int kStretches = 2048;  // of groups, of which a warp lists the tiles, at most

struct Tile {
  int64_t group, begin;  // of the group
  uint32_t size, first;  // of the group; the rank of this tile's first sample
  int64_t slot;          // the number of the group's first tile: its tiles follow one another

  // Where the group stands in the workspace: at a multiple of 16, and no two groups in the same places, since each of
  // them begins more than a tile after the one before.
  __device__ int64_t place() const { return begin / 16 * 16 + begin / kTile * 16; }
  __device__ uint32_t samples() const { return size - first < kTile ? size - first : kTile; }
  __device__ uint32_t tiles() const { return (size - 1) / kTile + 1; }
};

struct Tiles {
  Tile* tiles;
  int64_t* count;
  int64_t* chunks;  // the number of the first tile of each
  int64_t* chunk_count;
  uint64_t* ends;      // a stretch of groups each
  uint32_t* arrivals;  // of blocks that wait for each other; 0 before the launch

  // Calls body(tile, its number) for the tiles of a block.
  template <class Body>
  __device__ void for_each(Body body) const {
    // The count is read every time: kept, it would take registers.
    for (int64_t i = blockIdx.x; i < *count; i += gridDim.x) body(tiles[i], i);
  }
  // Calls body(a chunk's first tile, that tile's number) for the chunks of a block.
  template <class Body>
  __device__ void for_each_chunk(Body body) const {
    for (int64_t i = blockIdx.x; i < *chunk_count; i += gridDim.x) body(tiles[chunks[i]], chunks[i]);
  }
  // Calls body(a group's first tile, that tile's number) for the groups of a block.
  template <class Body>
  __device__ void for_each_group(Body body) const {
    for_each_chunk([&](const Tile& tile, int64_t number) {
      if (tile.first == 0) body(tile, number);
    });
  }
};

// Up to kTile numbers to shared memory, there for this thread once it has waited; the last 16 bytes may bring some of
// no one's.
template <int threads>
__device__ inline void bring_ahead(const uint32_t* from, uint32_t count, int thread, uint32_t* to) {
#pragma unroll
  for (int i = 0; i < kTile; i += 4 * threads) {
    const uint32_t at = i + 4 * thread;
    if (at < count) copy_ahead(to + at, from + at);
  }
}

// The most tiles that groups of `smallest` samples and more can have, smallest > kTile; none of them share samples.
inline int64_t most_tiles(const Batch& batch, int64_t smallest) {
  if (!batch.offsets.data) return batch.count * ((batch.width - 1) / kTile + 1);
  return batch.samples / smallest * ((smallest - 1) / kTile + 1) + batch.samples % smallest / kTile + 1;
}

// Places in the workspace that samples take, `place()` being what it is.
inline int64_t most_places(const Batch& batch) { return batch.samples + batch.samples / kTile * 16 + 16; }

// Groups of a stretch, and how many stretches there are.
constexpr int kExtents = 4;
__host__ __device__ inline int64_t stretch_of(const Batch& batch) {
  constexpr int64_t step = kExtents * kWarp;
  return (batch.count - 1) / (kStretches * step) * step + step;
}
__host__ __device__ inline int stretches_of(const Batch& batch) {
  return static_cast<int>((batch.count - 1) / stretch_of(batch) + 1);
}

// Calls body(extents, the first one's group) for the groups of a stretch; a lane's are kWarp apart.
template <class Body>
__device__ inline void for_each_extent(const Batch& batch, int stretch, Body body) {
  constexpr int64_t step = kExtents * kWarp;
  const int64_t each = stretch_of(batch), end = (stretch + 1) * each;
  for (int64_t base = stretch * each; base < end && base < batch.count; base += step) {
    Extent extents[kExtents];
#pragma unroll
    for (int i = 0; i < kExtents; ++i) {
      const int64_t g = base + i * kWarp + static_cast<int>(threadIdx.x) % kWarp;
      extents[i] = g < batch.count ? extent_of(batch, g) : Extent{0, 0};
    }
    body(extents, base);
  }
}

// Calls body(stretch) for the stretches of a warp.
template <class Body>
__device__ inline void for_each_stretch(const Batch& batch, Body body) {
  constexpr int warps = kListers / kWarp;
  const int stretches = stretches_of(batch);
  for (int s = blockIdx.x * warps + threadIdx.x / kWarp; s < stretches; s += gridDim.x * warps) body(s);
}

// The largest end of a group of `smallest` samples and more in each stretch of the grid's.
__device__ inline void find_ends_of_stretches(const Batch& batch, uint32_t smallest, const Tiles& tiles) {
  if (blockIdx.x == 0 && threadIdx.x == 0) *tiles.count = *tiles.chunk_count = 0;
  for_each_stretch(batch, [&](int stretch) {
    uint64_t last = 0;
    for_each_extent(batch, stretch, [&](const Extent(&extents)[kExtents], int64_t) {
#pragma unroll
      for (int i = 0; i < kExtents; ++i) {
        const Extent& extent = extents[i];
        if (extent.size >= smallest) last = Larger()(last, static_cast<uint64_t>(extent.begin) + extent.size);
      }
    });
    last = WarpTree<kWarp, uint64_t, Larger>(last).all;
    if (threadIdx.x % kWarp == 0) tiles.ends[stretch] = last;
  });
}
__device__ inline int64_t add_to(int64_t* counter, uint64_t by) {
  return static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(counter), by));
}

// Lists the tiles of all groups of `smallest` samples and more, in any order but a group's one after another. Where
// offsets fall, a group that begins before an earlier one ends is left out: what is listed lies side by side, so that
// it has no more tiles than there is room for, and no two tiles share samples.
__device__ inline void list_tiles_of_stretches(const Batch& batch, uint32_t smallest, const Tiles& tiles) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for_each_stretch(batch, [&](int stretch) {
    uint64_t reached = 0;
    for (int s = lane; s < stretch; s += kWarp) reached = Larger()(reached, tiles.ends[s]);
    reached = WarpTree<kWarp, uint64_t, Larger>(reached).all;
    for_each_extent(batch, stretch, [&](const Extent(&extents)[kExtents], int64_t base) {
      bool is_any = false;
#pragma unroll
      for (int i = 0; i < kExtents; ++i) is_any = is_any || extents[i].size >= smallest;
      if (!__any_sync(kAllLanes, is_any)) return;
#pragma unroll 1
      for (int i = 0; i < kExtents; ++i) {  // read again: not unrolled, the extents would be in local memory
        const int64_t g = base + i * kWarp + lane;
        const Extent extent = g < batch.count ? extent_of(batch, g) : Extent{0, 0};
        uint32_t own = extent.size >= smallest ? (extent.size - 1) / kTile + 1 : 0;
        const uint64_t begin = static_cast<uint64_t>(extent.begin), end = own ? begin + extent.size : 0;
        const Parts<uint64_t> ends = WarpTree<kWarp, uint64_t, Larger>(end).down(reached, 0, lane);
        reached = Larger()(reached, ends.all);
        if (begin < ends.before) own = 0;
        const Parts<uint32_t> parts = WarpTree<kWarp, uint32_t, Add>(own).down(0, 0, lane);
        if (parts.all == 0) continue;
        int64_t slot = lane == 0 ? add_to(tiles.count, parts.all) : 0;
        slot = __shfl_sync(kAllLanes, slot, 0) + parts.before;
        for (uint32_t left = __ballot_sync(kAllLanes, own > 0); left; left &= left - 1) {
          const int from = __ffs(static_cast<int>(left)) - 1;
          const uint32_t count = __shfl_sync(kAllLanes, own, from), size = __shfl_sync(kAllLanes, extent.size, from);
          const int64_t its_begin = __shfl_sync(kAllLanes, extent.begin, from),
                        its_slot = __shfl_sync(kAllLanes, slot, from);
          for (uint32_t t = lane; t < count; t += kWarp) {
            tiles.tiles[its_slot + t] = {base + i * kWarp + from, its_begin, size, t * kTile, its_slot};
            if (t % kChunk == 0) tiles.chunks[add_to(tiles.chunk_count, 1)] = its_slot + t;
          }
        }
      }
    });
  });
}

}  // namespace pkpo::cuda
