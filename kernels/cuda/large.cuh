// Groups of more samples than a block has room for, over the whole device: tiles of 4,096 sorted by a block each,
// merged by merge path, twice as long every round; then weighed in passes over the tiles, each of which needs a number
// a tile of the pass before.
//
// Cost, float32: 8 bytes written a sample to begin with, 16 moved a round, 8 read in each of the passes that follow
// (products of the weights, sums, results). Nothing waits for the host: how many tiles there are is known on the device
// alone, and every launch goes over as many as there turn out to be.
#pragma once

#include <algorithm>

#include "cuda/block.cuh"

namespace pkpo::cuda {

constexpr int kTeam = 512;
constexpr int kItems = 8;  // samples a thread
constexpr int kTile = kTeam * kItems;
constexpr int kStretches = 2048;  // of groups, of which a warp lists the tiles

struct Tile {
  int64_t group, begin;  // of the group
  uint32_t size, first;  // of the group; the rank of this tile's first sample
  int64_t slot;          // of the group's first tile: its tiles follow one another
};

template <class V>
struct Workspace {
  using Entry = typename Entries<V>::Entry;
  Entry *entries, *spare;  // a sample each, where the sample stands in the batch
  double* h;               // a result, or a gap's gradient, by rank; the same
  Tile* tiles;
  uint32_t* present;  // a tile each, of its group
  double* products;   // a tile each
  double* sums;  // four a tile: up and down of the finite part, then of the infinite one; for gradients high and low
  uint64_t* largest;  // a tile each
  uint64_t* ends;     // a stretch of groups each
  int64_t* tile_count;
};

// The most tiles that groups of more than kTile samples can have.
inline int64_t most_tiles(const Batch& batch) { return batch.samples / kTile + batch.samples / (kTile + 1) + 1; }

template <class V>
size_t lay_out(const Call& call, char* memory, Workspace<V>& workspace) {
  const size_t samples = static_cast<size_t>(call.batch.samples), tiles = static_cast<size_t>(most_tiles(call.batch));
  size_t used = 0;
  const auto take = [&](auto*& pointer, size_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used);
    used += (count * sizeof(*pointer) + 255) / 256 * 256;
  };
  take(workspace.entries, samples);
  take(workspace.spare, samples);
  take(workspace.h, call.op == Op::max_at_k ? 0 : samples);
  take(workspace.tiles, tiles);
  take(workspace.present, tiles);
  take(workspace.products, tiles);
  take(workspace.sums, 4 * tiles);
  take(workspace.largest, tiles);
  take(workspace.ends, kStretches);
  take(workspace.tile_count, 1);
  return used;
}

// Calls body(extents, the first one's group) for the groups of a stretch; a lane's are kWarp apart.
constexpr int kExtents = 4;
template <class Body>
__device__ inline void for_each_extent(const Batch& batch, int stretch, Body body) {
  constexpr int64_t step = kExtents * kWarp;
  const int64_t each = (batch.count - 1) / (kStretches * step) * step + step, end = (stretch + 1) * each;
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
__device__ inline void for_each_stretch(Body body) {
  constexpr int warps = kTeam / kWarp;
  for (int s = blockIdx.x * warps + threadIdx.x / kWarp; s < kStretches; s += gridDim.x * warps) body(s);
}

// The largest end of a group of `smallest` samples and more in each stretch.
template <class V>
__global__ void __launch_bounds__(kTeam, 1) find_ends(Call call, uint32_t smallest, Workspace<V> workspace) {
  if (blockIdx.x == 0 && threadIdx.x == 0) *workspace.tile_count = 0;
  for_each_stretch([&](int stretch) {
    uint64_t last = 0;
    for_each_extent(call.batch, stretch, [&](const Extent(&extents)[kExtents], int64_t) {
#pragma unroll
      for (int i = 0; i < kExtents; ++i) {
        const Extent& extent = extents[i];
        if (extent.size >= smallest) last = Larger()(last, static_cast<uint64_t>(extent.begin) + extent.size);
      }
    });
    last = WarpTree<kWarp, uint64_t, Larger>(last).all;
    if (threadIdx.x % kWarp == 0) workspace.ends[stretch] = last;
  });
}

// Lists the tiles of all groups of `smallest` samples and more, in any order but a group's one after another. Where
// offsets fall, a group that begins before an earlier one ends is left out: what is listed lies side by side, so that
// it has no more tiles than there is room for, and no two tiles share samples.
template <class V>
__global__ void __launch_bounds__(kTeam, 1) list_tiles(Call call, uint32_t smallest, Workspace<V> workspace) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for_each_stretch([&](int stretch) {
    uint64_t reached = 0;
    for (int s = lane; s < stretch; s += kWarp) reached = Larger()(reached, workspace.ends[s]);
    reached = WarpTree<kWarp, uint64_t, Larger>(reached).all;
    for_each_extent(call.batch, stretch, [&](const Extent(&extents)[kExtents], int64_t base) {
      bool is_any = false;
#pragma unroll
      for (int i = 0; i < kExtents; ++i) is_any = is_any || extents[i].size >= smallest;
      if (!__any_sync(kAllLanes, is_any)) return;
#pragma unroll 1
      for (int i = 0; i < kExtents; ++i) {  // read again: not unrolled, the extents would be in local memory
        const int64_t g = base + i * kWarp + lane;
        const Extent extent = g < call.batch.count ? extent_of(call.batch, g) : Extent{0, 0};
        uint32_t tiles = extent.size >= smallest ? (extent.size - 1) / kTile + 1 : 0;
        const uint64_t begin = static_cast<uint64_t>(extent.begin), end = tiles ? begin + extent.size : 0;
        const Parts<uint64_t> ends = WarpTree<kWarp, uint64_t, Larger>(end).down(reached, 0, lane);
        reached = Larger()(reached, ends.all);
        if (begin < ends.before) tiles = 0;
        const Parts<uint32_t> parts = WarpTree<kWarp, uint32_t, Add>(tiles).down(0, 0, lane);
        if (parts.all == 0) continue;
        int64_t slot = 0;
        if (lane == 0) {
          slot =
              static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(workspace.tile_count), parts.all));
        }
        slot = __shfl_sync(kAllLanes, slot, 0) + parts.before;
        for (uint32_t left = __ballot_sync(kAllLanes, tiles > 0); left; left &= left - 1) {
          const int from = __ffs(static_cast<int>(left)) - 1;
          const uint32_t count = __shfl_sync(kAllLanes, tiles, from), size = __shfl_sync(kAllLanes, extent.size, from);
          const int64_t its_begin = __shfl_sync(kAllLanes, extent.begin, from),
                        own = __shfl_sync(kAllLanes, slot, from);
          for (uint32_t t = lane; t < count; t += kWarp) {
            workspace.tiles[own + t] = {base + i * kWarp + from, its_begin, size, t * kTile, own};
          }
        }
      }
    });
  });
}

template <class V>
__device__ inline uint32_t size_of_tile(const Tile& tile) {
  return tile.size - tile.first < kTile ? tile.size - tile.first : kTile;
}

// Calls body(tile, its number) for the tiles of a block.
template <class V, class Body>
__device__ inline void for_each_tile(const Workspace<V>& workspace, Body body) {
  // The count is read every time: kept, it would take registers.
  for (int64_t i = blockIdx.x; i < *workspace.tile_count; i += gridDim.x) body(workspace.tiles[i], i);
}

// Writes the entries that a block has by rank, through its shelf.
template <int L, int I, class Entry, class Shelf, class Map>
__device__ inline void write_entries(const Entry (&e)[I], uint32_t size, const Shelf& shelf, Entry* to, Map map) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < I; ++i) shelf.put(threadIdx.x * I + i, e[i]);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < I; ++i) {
    const uint32_t rank = i * L + threadIdx.x;
    if (rank < size) to[rank] = map(shelf.get(rank));
  }
  __syncthreads();
}

// Threads that sort a tile: they have 16 samples each where these are float32.
template <class V>
constexpr int kSorters = sizeof(V) == 4 ? kTile / 16 : kTeam;

template <class V>
__global__ void __launch_bounds__(kSorters<V>, 512 / kSorters<V>) sort_tiles(Call call, Workspace<V> workspace) {
  using E = Entries<V>;
  constexpr int L = kSorters<V>, I = kTile / L;
  const Team<L> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t) {
    typename E::Entry e[I];
    const uint32_t size = size_of_tile<V>(tile), first = tile.first;
    sort_in_block<V, false>(team, call.batch, tile.begin + first, size, dynamic_shared(), e);
    write_entries<L>(e, size, Shelf<typename E::Entry, I>(dynamic_shared(), kTile),
                     workspace.entries + tile.begin + first,
                     [&](const typename E::Entry& entry) { return E::moved(entry, first); });
  });
}

// Runs of `run` samples, sorted, become runs of twice as many. A tile is written from two stretches of its two runs,
// which are merged in shared memory.
template <class V>
__global__ void __launch_bounds__(kTeam, sizeof(V) == 4 ? 2 : 1) merge_tiles(Workspace<V> workspace, uint64_t run) {
  using E = Entries<V>;
  using Entry = typename E::Entry;
  __shared__ uint32_t split[2];
  const Team<kTeam> team;
  // Samples in shared memory are numbers below kTile; the stretches' own places stand for them until the end.
  const Shelf<Entry, kItems> shelf(dynamic_shared(), kTile);
  for_each_tile(workspace, [&](const Tile& tile, int64_t) {
    const uint64_t begin = tile.first / (2 * run) * (2 * run), rest = tile.size - begin;
    const uint32_t a_size = static_cast<uint32_t>(rest < run ? rest : run);
    const uint32_t b_size = static_cast<uint32_t>(rest - a_size < run ? rest - a_size : run);
    const Entry *a = workspace.entries + tile.begin + begin, *b = a + a_size;
    const uint32_t from = static_cast<uint32_t>(tile.first - begin), size = size_of_tile<V>(tile);
    if (team.thread < 2) {
      split[team.thread] = merge_path<uint32_t>(
          team.thread ? from + size : from, a_size, b_size, [&](uint32_t i) { return a[i]; },
          [&](uint32_t i) { return b[i]; });
    }
    team.sync();
    const uint32_t a_from = split[0], a_count = split[1] - split[0], b_from = from - a_from;
    const auto source = [&](uint32_t i) { return i < a_count ? a[a_from + i] : b[b_from + (i - a_count)]; };
    for (uint32_t i = team.thread; i < size; i += kTeam) {
      Entry e = source(i);
      if constexpr (sizeof(V) == 8) e.sample = i;
      shelf.put(i, e);
    }
    team.sync();
    const uint32_t rank = team.thread * kItems;
    Entry e[kItems];
    if (rank < size) merge_on_shelf<kItems>(shelf, 0, a_count, a_count, size - a_count, rank, e);
    write_entries<kTeam>(e, size, shelf, workspace.spare + tile.begin + tile.first, [&](Entry entry) {
      if constexpr (sizeof(V) == 8) entry.sample = source(entry.sample).sample;
      return entry;
    });
  });
}

// Each thread its ranks of a tile of a sorted group.
template <class V>
struct TileRanks {
  Sorted<kItems, V> group;
  V lowest;
  Shape shape;

  __device__ TileRanks(const Team<kTeam>& team, const Call& call, const Workspace<V>& workspace, const Tile& tile,
                       int64_t number) {
    using E = Entries<V>;
    const auto* entries = workspace.entries + tile.begin;
    group.n = workspace.present[number];
    group.rank0 = tile.first + computed_here(team.thread * kItems);
    group.top = group.n > 0 ? E::value(entries[group.n - 1]) : V(0);
    lowest = group.n > 0 ? E::value(entries[0]) : V(0);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const uint32_t rank = group.rank0 + i;
      group.x[i] = rank < group.n ? E::value(entries[rank]) : group.top;
      group.sample[i] = rank < tile.size ? E::sample(entries[rank]) : 0;
    }
    const uint32_t below = group.rank0 > 0 ? group.rank0 - 1 : 0;
    group.before = below < group.n ? E::value(entries[below]) : group.top;
    shape = Shape{group.n, clamp_k(k_of(call.batch, tile.group), group.n, call.form), call.form};
  }
  __device__ bool out_of_range() const { return !is_in_range(lowest) || !is_in_range(group.top); }
};

// What a pass left for the tiles of a group, before this tile and after it, along the tree of team.cuh; from kTeam
// tiles on in turns of so many.
template <class T, class Op, class At>
__device__ inline Parts<T> parts_of_tiles(const Team<kTeam>& team, const Tile& tile, T neutral, Op op, At at) {
  const uint32_t tiles = (tile.size - 1) / kTile + 1, own = tile.first / kTile;
  if (tiles <= kWarp) {  // every warp by itself
    const uint32_t t = Team<kTeam>::lane();
    const Parts<T> inner =
        WarpTree<kWarp, T, Op>(t < tiles ? at(tile.slot + t) : neutral).down(neutral, neutral, static_cast<int>(t));
    return {broadcast_in_warp(inner.before, own), broadcast_in_warp(inner.after, own), inner.all};
  }
  Parts<T> parts{neutral, neutral, neutral};
  for (uint32_t turn = 0; turn < tiles; turn += kTeam) {
    const uint32_t t = turn + team.thread;
    const Parts<T> inner = team.parts(t < tiles ? at(tile.slot + t) : neutral, neutral, op);
    if (own >= turn && own - turn < kTeam) {
      parts.before = op(parts.all, team.broadcast(inner.before, own - turn));
      parts.after = team.broadcast(inner.after, own - turn);
    } else if (own < turn) {
      parts.after = op(parts.after, inner.all);
    }
    parts.all = op(parts.all, inner.all);
  }
  return parts;
}

template <class V>
__device__ inline double product_beyond(const Team<kTeam>& team, const Workspace<V>& workspace, const Tile& tile) {
  return parts_of_tiles(team, tile, 1.0, Multiply(), [&](int64_t t) { return workspace.products[t]; }).after;
}

// How many samples of a tile's group are present, and the product of the factors of its ranks.
template <class V>
__global__ void __launch_bounds__(kTeam, 1) multiply_tiles(Call call, Workspace<V> workspace) {
  using E = Entries<V>;
  const Team<kTeam> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    const auto* entries = workspace.entries + tile.begin;
    uint32_t low = 0, high = tile.size;
    while (low < high) {  // the first absent one
      const uint32_t middle = low + (high - low) / 2;
      if (E::is_absent(entries[middle])) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    const Shape shape{low, clamp_k(k_of(call.batch, tile.group), low, call.form), call.form};
    const double share = shape.share();
    double factor[kItems];
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const uint32_t rank = tile.first + team.thread * kItems + i;
      factor[i] = shape.factor(rank, shape.step(rank), share);
    }
    const Tree<kItems, double, Multiply> tree(factor);
    const double product = team.parts(tree.all(), 1.0, Multiply()).all;
    if (team.thread == 0) {
      workspace.present[number] = low;
      workspace.products[number] = product;
    }
  });
}

// The sums of a tile's terms.
template <class V>
__global__ void __launch_bounds__(kTeam, 1) sum_tiles(Call call, Workspace<V> workspace) {
  const Team<kTeam> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    const TileRanks<V> ranks(team, call, workspace, tile, number);
    V* w = reinterpret_cast<V*>(dynamic_shared());
    set_weights<kItems>(team, ranks.shape, ranks.group.rank0, product_beyond(team, workspace, tile), w);
    const Coefficients<V> c(ranks.shape, w);
#pragma unroll 1
    for (int part = ranks.out_of_range() ? 1 : 0; part >= 0; --part) {
      const uint32_t rank0 = computed_here(ranks.group.rank0);
      const V scale = ranks.out_of_range() ? V(0.25) : V(1);
      const auto part_of = [&](V x) { return part == 1 ? infinite_part(x) : finite_part(x, scale); };
      V values[kItems];
#pragma unroll
      for (int i = 0; i < kItems; ++i) values[i] = part_of(ranks.group.x[i]);
      const V before = part_of(ranks.group.before);
      const auto sum = [&](V(&coefficient)[kItems]) {
        const auto terms = terms_of(coefficient, values, before);
        return team.parts(terms.all(), 0.0, Add()).all;
      };
      double up = 0, down = 0;
      V coefficient[kItems];
      if (ranks.shape.has_up()) {
        c.up(team, rank0, coefficient);
        up = sum(coefficient);
      }
      if (ranks.shape.has_down()) {
        c.down(team, rank0, coefficient);
        down = sum(coefficient);
      }
      if (team.thread == 0) {
        workspace.sums[4 * number + 2 * part] = up;
        workspace.sums[4 * number + 2 * part + 1] = down;
      }
    }
  });
}

template <class V>
__global__ void __launch_bounds__(kTeam, 1) finish_tiles(Call call, Workspace<V> workspace) {
  const Team<kTeam> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    if (call.op == Op::max_at_k && tile.first > 0) return;
    TileRanks<V> ranks(team, call, workspace, tile, number);
    V* w = reinterpret_cast<V*>(dynamic_shared());
    set_weights<kItems>(team, ranks.shape, ranks.group.rank0, product_beyond(team, workspace, tile), w);
    const Coefficients<V> c(ranks.shape, w);
    const auto beyond = [&](int part) {
      const auto at = [&](int which) {
        return [&, which](int64_t t) { return workspace.sums[4 * t + 2 * part + which]; };
      };
      return Beyond{parts_of_tiles(team, tile, 0.0, Add(), at(0)).before,
                    parts_of_tiles(team, tile, 0.0, Add(), at(1)).after};
    };
    const Beyond finite = beyond(0), infinite = ranks.out_of_range() ? beyond(1) : Beyond();
    V y[kItems];
    scan_any(team, c, ranks.group.x, ranks.group.top, ranks.group.rank0, ranks.group.before, finite, infinite,
             ranks.out_of_range(), w + kTile, y);
    if (call.op == Op::max_at_k) {
      if (team.thread == 0) {
        store_element(call.out, call.batch.dtype, tile.group * call.stride,
                      ranks.shape.k > 0 ? y[0] : not_a_number<V>());
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const uint32_t rank = ranks.group.rank0 + i;
      if (rank < ranks.group.n) workspace.h[tile.begin + rank] = y[i];
    }
  });
}

// The first rank of the value at `rank`.
template <class V>
__device__ inline uint32_t first_of_value(const typename Entries<V>::Entry* entries, uint32_t rank, V x) {
  if (rank == 0 || Entries<V>::value(entries[rank - 1]) != x) return rank;
  uint32_t low = 0, high = rank;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (Entries<V>::value(entries[middle]) < x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Equal rewards get the result of the first of them.
template <class V>
__global__ void __launch_bounds__(kTeam, 2) share_results(Call call, Workspace<V> workspace) {
  using E = Entries<V>;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    const auto* entries = workspace.entries + tile.begin;
    const uint32_t n = workspace.present[number], end = tile.first + size_of_tile<V>(tile);
    const uint32_t k = clamp_k(k_of(call.batch, tile.group), n, call.form);
    const double* h = workspace.h + tile.begin;
    constexpr int kAtOnce = 4;  // read at once, though few are tied
#pragma unroll 1
    for (uint32_t from = tile.first; from < end; from += kAtOnce * kTeam) {
      typename E::Entry e[kAtOnce], before[kAtOnce];
      double y[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const uint32_t wanted = from + i * kTeam + threadIdx.x, rank = wanted < end ? wanted : end - 1;
        e[i] = entries[rank];
        before[i] = entries[rank > 0 ? rank - 1 : 0];
        y[i] = rank < n ? h[rank] : 0.0;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const uint32_t rank = from + i * kTeam + threadIdx.x;
        if (rank >= end) break;
        if (rank > 0 && rank < n && E::value(e[i]) == E::value(before[i])) {
          y[i] = h[first_of_value<V>(entries, rank, E::value(e[i]))];
        }
        store_element(call.out, call.batch.dtype, tile.begin + E::sample(e[i]), k > 0 ? static_cast<V>(y[i]) : V(0));
      }
    }
  });
}

template <class V>
__global__ void __launch_bounds__(kTeam, 1) largest_gradients(Call call, Workspace<V> workspace) {
  const Team<kTeam> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    const TileRanks<V> ranks(team, call, workspace, tile, number);
    double gy[kItems];
    load_gradient(call, tile.begin, tile.group, ranks.group, gy);
    uint64_t largest = 0;
#pragma unroll
    for (int i = 0; i < kItems; ++i) largest = Larger()(largest, magnitude(gy[i]));
    largest = team.parts(largest, uint64_t{0}, Larger()).all;
    if (team.thread == 0) workspace.largest[number] = largest;
  });
}

template <class V>
__device__ inline Cuts cuts_of_tiles(const Team<kTeam>& team, const Workspace<V>& workspace, const Tile& tile,
                                     uint32_t n) {
  return cuts_for(
      parts_of_tiles(team, tile, uint64_t{0}, Larger(), [&](int64_t t) { return workspace.largest[t]; }).all, n);
}

template <class V>
__global__ void __launch_bounds__(kTeam, 1) sum_gradients(Call call, Workspace<V> workspace) {
  const Team<kTeam> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    const TileRanks<V> ranks(team, call, workspace, tile, number);
    double gy[kItems];
    load_gradient(call, tile.begin, tile.group, ranks.group, gy);
    const Cuts cuts = cuts_of_tiles(team, workspace, tile, ranks.group.n);
    Pair piece[kItems];
#pragma unroll
    for (int i = 0; i < kItems; ++i) piece[i] = cut(gy[i], cuts);
    const Tree<kItems, Pair, Add> tree(piece);
    const Pair all = team.parts(tree.all(), Pair{0, 0}, Add()).all;
    if (team.thread == 0) {
      workspace.sums[4 * number] = all.high;
      workspace.sums[4 * number + 1] = all.low;
    }
  });
}

// h by rank, and for every tile its group's -top sum(gy).
template <class V>
__global__ void __launch_bounds__(kTeam, 1) scan_gradients(Call call, Workspace<V> workspace, double* ends) {
  const Team<kTeam> team;
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    const TileRanks<V> ranks(team, call, workspace, tile, number);
    double gy[kItems], h[kItems];
    load_gradient(call, tile.begin, tile.group, ranks.group, gy);
    double* w = reinterpret_cast<double*>(dynamic_shared());
    set_weights<kItems>(team, ranks.shape, ranks.group.rank0, product_beyond(team, workspace, tile), w);
    const Coefficients<double> c(ranks.shape, w);
    const Cuts cuts = cuts_of_tiles(team, workspace, tile, ranks.group.n);
    const Parts<Pair> tiles = parts_of_tiles(team, tile, Pair{0, 0}, Add(), [&](int64_t t) {
      return Pair{workspace.sums[4 * t], workspace.sums[4 * t + 1]};
    });
    const double total =
        scan_gradient(team, c, ranks.group.rank0, gy, cuts, BeyondGradient{tiles.before, tiles.after}, h);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      const uint32_t rank = ranks.group.rank0 + i;
      if (rank < ranks.group.n) workspace.h[tile.begin + rank] = h[i];
    }
    if (team.thread == 0) ends[number] = c.top != 0 ? -(c.top * total) : 0.0;
  });
}

template <class V>
__global__ void __launch_bounds__(kTeam, 1) finish_gradients(Call call, Workspace<V> workspace, double* ends) {
  for_each_tile(workspace, [&](const Tile& tile, int64_t number) {
    using E = Entries<V>;
    const auto* entries = workspace.entries + tile.begin;
    const double* h = workspace.h + tile.begin;
    const uint32_t n = workspace.present[number], end = tile.first + size_of_tile<V>(tile);
    const uint32_t k = clamp_k(k_of(call.batch, tile.group), n, call.form);
    for (uint32_t rank = tile.first + threadIdx.x; rank < end; rank += kTeam) {
      double gx = 0;
      if (rank < n && k > 0) {
        const V x = E::value(entries[rank]);
        const uint32_t first = first_of_value<V>(entries, rank, x);
        uint32_t low = rank + 1, high = n;  // to become the first rank above it
        if (low < n && E::value(entries[low]) != x) high = low;
        while (low < high) {
          const uint32_t middle = low + (high - low) / 2;
          if (E::value(entries[middle]) > x) {
            high = middle;
          } else {
            low = middle + 1;
          }
        }
        gx = h[first] - (low < n ? h[low] : ends[number]);
        if (low - first > 1) gx /= static_cast<double>(low - first);
      }
      store_element(call.out, call.batch.dtype, tile.begin + E::sample(entries[rank]), static_cast<V>(gx));
    }
  });
}

// Enqueues all of it.
template <class V>
cudaError_t large_groups(const Call& call, uint32_t smallest, void* memory, Stream stream) {
  Workspace<V> workspace;
  lay_out(call, static_cast<char*>(memory), workspace);
  const int64_t tiles = most_tiles(call.batch);
  constexpr size_t shelf = Shelf<typename Entries<V>::Entry, kItems>::bytes(kTile);
  const int64_t stretches = std::min<int64_t>(kStretches, (call.batch.count - 1) / (kExtents * kWarp) + 1);
  const int64_t listing = (stretches - 1) / (kTeam / kWarp) + 1;
  cudaError_t error = launch<find_ends<V>>(listing, kTeam, 0, stream, call, smallest, workspace);
  if (error == cudaSuccess) error = launch<list_tiles<V>>(listing, kTeam, 0, stream, call, smallest, workspace);
  if (error == cudaSuccess) error = launch<sort_tiles<V>>(tiles, kSorters<V>, shelf, stream, call, workspace);
  const uint64_t longest = static_cast<uint64_t>(call.batch.offsets.data ? call.batch.samples : call.batch.width);
  for (uint64_t run = kTile; run < longest && error == cudaSuccess; run *= 2) {
    error = launch<merge_tiles<V>>(tiles, kTeam, shelf, stream, workspace, run);
    auto* sorted = workspace.spare;
    workspace.spare = workspace.entries;
    workspace.entries = sorted;
  }
  const auto pass = [&](auto enqueue) {
    if (error == cudaSuccess) error = enqueue();
  };
  pass([&] { return launch<multiply_tiles<V>>(tiles, kTeam, 0, stream, call, workspace); });
  if (call.op == Op::backward) {
    pass([&] { return launch<largest_gradients<V>>(tiles, kTeam, 0, stream, call, workspace); });
    pass([&] { return launch<sum_gradients<V>>(tiles, kTeam, 0, stream, call, workspace); });
    // The products are read by the pass that finds the ends, so the ends stand in the place of something else.
    double* ends = reinterpret_cast<double*>(workspace.spare);
    pass(
        [&] { return launch<scan_gradients<V>>(tiles, kTeam, sizeof(double) * kTile, stream, call, workspace, ends); });
    pass([&] { return launch<finish_gradients<V>>(tiles, kTeam, 0, stream, call, workspace, ends); });
  } else {
    pass([&] { return launch<sum_tiles<V>>(tiles, kTeam, sizeof(V) * kTile, stream, call, workspace); });
    pass([&] { return launch<finish_tiles<V>>(tiles, kTeam, 2 * sizeof(V) * kTile, stream, call, workspace); });
    if (call.op == Op::transform) {
      pass([&] { return launch<share_results<V>>(tiles, kTeam, 0, stream, call, workspace); });
    }
  }
  return error;
}

}  // namespace pkpo::cuda
