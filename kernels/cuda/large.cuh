// Groups of more samples than a block has room for: sorted over the whole device (radix.cuh), then weighed in passes
// over their tiles, each of which needs a number a tile of the pass before.
//
// Cost of the passes, float32, bytes a sample: 4 read for the sums, 8 read and 4 written for the results. For
// gradients the incoming ones are read where the samples stand, once, and go by rank from then on.
#pragma once

#include "cuda/group.cuh"
#include "cuda/radix.cuh"

namespace pkpo::cuda {

// Threads that weigh a tile: of 8 samples each, or 16 in the usual calls.
constexpr int kTeam = 512, kUsualTeam = 256;
template <int L>
constexpr int kItems = kTile / L;

template <class V>
struct Workspace {
  Tiles tiles;
  Sorting<V> sorting;
  double* h;          // of a gap, for gradients
  uint32_t* present;  // a tile each, of its group
  double* products;   // a tile each; joined, of the tiles after it
  // Four a tile: up and down of the finite part, then of the infinite one; joined, of the tiles before it and after it.
  // For gradients high and low, twice; joined, of the tiles before it, then of those after it.
  double* sums;
  uint64_t* largest;  // a tile each; joined, of its group
  double* ends;       // a tile each: -top sum(gy) of its group
};

template <class V>
size_t lay_out(const Call& call, uint32_t smallest, char* memory, Workspace<V>& workspace) {
  const size_t places = static_cast<size_t>(most_places(call.batch)),
               tiles = static_cast<size_t>(most_tiles(call.batch, smallest));
  size_t used = 0;
  const auto take = [&](auto*& pointer, size_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + used);
    used += (count * sizeof(*pointer) + 255) / 256 * 256;
  };
  take(workspace.sorting.keys, places);
  take(workspace.sorting.keys_to, places);
  take(workspace.sorting.samples, places);
  take(workspace.sorting.samples_to, places);
  take(workspace.sorting.counts, tiles * kDigits);
  take(workspace.sorting.sums, tiles * kDigits);
  take(workspace.h, call.op == Op::backward ? places : 0);
  take(workspace.present, tiles);
  take(workspace.products, tiles);
  take(workspace.sums, 4 * tiles);
  take(workspace.largest, tiles);
  take(workspace.ends, tiles);
  take(workspace.tiles.tiles, tiles);
  take(workspace.tiles.count, 1);
  take(workspace.tiles.chunks, tiles);
  take(workspace.tiles.chunk_count, 1);
  take(workspace.tiles.ends, kStretches);
  take(workspace.tiles.arrivals, 1);
  return used;
}

// A thread's ranks of a tile that has `size`, from or to places that are 16 bytes apart; what is missing is left as is.
template <int I, class T>
__device__ inline void load_ranks(const T* from, uint32_t rank, uint32_t size, T (&x)[I]) {
  if (rank + I <= size) {
    const Piece<T>* pieces = reinterpret_cast<const Piece<T>*>(from + rank);
#pragma unroll
    for (int i = 0; i < I; ++i) x[i] = pieces[i / Piece<T>::kItems].item[i % Piece<T>::kItems];
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if (rank + i < size) x[i] = from[rank + i];
    }
  }
}
template <int I, class T>
__device__ inline void store_ranks(T* to, uint32_t rank, uint32_t size, const T (&x)[I]) {
  if (rank + I <= size) {
    Piece<T>* pieces = reinterpret_cast<Piece<T>*>(to + rank);
#pragma unroll
    for (int i = 0; i < I; ++i) pieces[i / Piece<T>::kItems].item[i % Piece<T>::kItems] = x[i];
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if (rank + i < size) to[rank + i] = x[i];
    }
  }
}

// What a warp finds, for all threads of a block: for a question that is rarely asked.
template <int L, class Find>
__device__ inline uint32_t found_by_a_warp(const Team<L>& team, Find find) {
  __shared__ uint32_t found;
  team.sync();
  if (team.thread < kWarp) {
    const uint32_t own = find();
    if (team.thread == 0) found = own;
  }
  team.sync();
  return found;
}

// The group of a tile, and each thread its ranks: their values, if the thread is to have them.
template <class V, int L = kTeam>
struct TileShape {
  uint32_t n, rank0;
  Shape shape;

  __device__ TileShape(const Team<L>& team, const Call& call, const Workspace<V>& workspace, const Tile& tile,
                       int64_t number)
      : n(workspace.present[number]),
        rank0(tile.first + computed_here(team.thread * kItems<L>)),
        shape{n, clamp_k(k_of(call.batch, tile.group), n, call.form), call.form} {}
};
template <class V, int L = kTeam>
struct TileRanks {
  Sorted<kItems<L>, V> group;  // but for the samples
  V lowest;
  Shape shape;
  const KeyOf<V>* keys;  // of the group
  uint32_t first, end;   // ranks of the tile that are present

  __device__ TileRanks(const Team<L>& team, const Call& call, const Workspace<V>& workspace, const Tile& tile,
                       int64_t number) {
    const TileShape<V, L> its(team, call, workspace, tile, number);
    shape = its.shape;
    group.n = its.n;
    group.rank0 = its.rank0;
    keys = workspace.sorting.keys + tile.place();
    first = tile.first < group.n ? tile.first : group.n;
    end = group.n - first < kTile ? group.n : first + kTile;
    const KeyOf<V> top = group.n > 0 ? keys[group.n - 1] : key_of(V(0));
    KeyOf<V> key[kItems<L>];
#pragma unroll
    for (int i = 0; i < kItems<L>; ++i) key[i] = top;
    load_ranks(keys, group.rank0, group.n, key);
    const uint32_t below = group.rank0 > 0 ? group.rank0 - 1 : 0;
    const KeyOf<V> before = below < group.n ? keys[below] : top;
    set_by_keys(key, before, top, group);
    lowest = group.n > 0 ? value_of(keys[0]) : V(0);
  }
  __device__ bool out_of_range() const { return !is_in_range(lowest) || !is_in_range(group.top); }
};

// Equal rewards on both sides of where a tile begins: their first rank, and the rank behind those of the tile. Both are
// the tile's first rank where there are none.
struct Tie {
  uint32_t begin, end;
};
template <int L, class Key>
__device__ inline Tie tie_with_before(const Team<L>& team, const Key* keys, uint32_t first, uint32_t end) {
  if (first == 0 || first >= end || keys[first - 1] != keys[first]) return {first, first};
  const Key key = keys[first];
  return {found_by_a_warp(team, [&] { return first_not_below(keys, 0, first, key); }),
          found_by_a_warp(team, [&] { return first_not_below(keys, first, end, Key(key + 1)); })};
}

// In the place of what a tile left, which at(its number) refers to, what those before it did, or those after it.
template <int L, class T, class Op, class At>
__device__ inline void put_what_is_before(const Team<L>& team, const Tile& first, T neutral, Op op, At at) {
  T before = neutral;
  for (uint32_t turn = 0; turn < first.tiles(); turn += L) {
    const bool is_one = turn + team.thread < first.tiles();
    const int64_t number = first.slot + turn + team.thread;
    const Parts<T> parts = team.parts(is_one ? at(number) : neutral, neutral, op);
    if (is_one) at(number) = op(before, parts.before);
    before = op(before, parts.all);
  }
}
template <int L, class T, class Op, class At>
__device__ inline void put_what_is_after(const Team<L>& team, const Tile& first, T neutral, Op op, At at) {
  T after = neutral;
  for (uint32_t turn = (first.tiles() - 1) / L * L;; turn -= L) {
    const bool is_one = turn + team.thread < first.tiles();
    const int64_t number = first.slot + turn + team.thread;
    const Parts<T> parts = team.parts(is_one ? at(number) : neutral, neutral, op);
    if (is_one) at(number) = op(parts.after, after);
    after = op(parts.all, after);
    if (turn == 0) break;
  }
}

// The products of tiles become those of the tiles after them; a block does a group.
constexpr int kJoiners = 256;
template <class V>
struct JoinProducts : Pass<kJoiners, 4> {
  template <int L>
  __device__ static void run(const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each_group([&](const Tile& tile, int64_t) {
      put_what_is_after(team, tile, 1.0, Multiply(), [&](int64_t t) -> double& { return workspace.products[t]; });
    });
  }
};

// The sums of tiles upwards become those of the tiles before them, and downwards of those after them.
template <class V>
struct JoinSums : Pass<kJoiners, 4> {
  template <int L>
  __device__ static void run(const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each_group([&](const Tile& tile, int64_t number) {
      const auto* keys = workspace.sorting.keys + tile.place();
      const uint32_t n = workspace.present[number];
      const bool in_range = n == 0 || (is_in_range(value_of(keys[0])) && is_in_range(value_of(keys[n - 1])));
#pragma unroll 1
      for (int part = 0; part < (in_range ? 1 : 2); ++part) {
        const auto at = [&](int which) {
          return [&, which](int64_t t) -> double& { return workspace.sums[4 * t + 2 * part + which]; };
        };
        put_what_is_before(team, tile, 0.0, Add(), at(0));
        put_what_is_after(team, tile, 0.0, Add(), at(1));
      }
    });
  }
};

// How many samples of a tile's group are present, and the product of the factors of its ranks.
template <class V>
struct MultiplyTiles : Pass<kTeam, 2> {
  template <int L>
  __device__ static void run(const Call& call, const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each([&](const Tile& tile, int64_t number) {
      const auto* keys = workspace.sorting.keys + tile.place();
      const KeyOf<V> absent = ~KeyOf<V>(0);
      uint32_t n = tile.size;
      if (keys[n - 1] == absent) n = found_by_a_warp(team, [&] { return first_not_below(keys, 0, tile.size, absent); });
      const Shape shape{n, clamp_k(k_of(call.batch, tile.group), n, call.form), call.form};
      const double share = shape.share();
      double factor[kItems<L>];
#pragma unroll
      for (int i = 0; i < kItems<L>; ++i) {
        const uint32_t rank = tile.first + team.thread * kItems<L> + i;
        factor[i] = shape.factor(rank, shape.step(rank), share);
      }
      const Tree<kItems<L>, double, Multiply> tree(factor);
      const double product = team.parts(tree.all(), 1.0, Multiply()).all;
      if (team.thread == 0) {
        workspace.present[number] = n;
        workspace.products[number] = product;
      }
    });
  }
};

// The sums of a tile's terms.
template <class V, bool usual>
struct SumTiles : Pass<usual ? kUsualTeam : kTeam, usual ? 3 : 1> {
  template <int>
  static constexpr size_t kShared = sizeof(V) * kTile;

  template <int L>
  __device__ static void run(const Call& asked, const Workspace<V>& workspace) {
    Call call = asked;
    if constexpr (usual) say_usual(call);
    constexpr int I = kItems<L>;
    const Team<L> team;
    workspace.tiles.for_each([&](const Tile& tile, int64_t number) {
      const TileRanks<V, L> ranks(team, call, workspace, tile, number);
      V* w = reinterpret_cast<V*>(dynamic_shared());
      set_weights_by_pieces<I>(team, ranks.shape, ranks.group.rank0, workspace.products[number], w);
      const Coefficients<V> c(ranks.shape, w);
#pragma unroll 1
      for (int part = ranks.out_of_range() ? 1 : 0; part >= 0; --part) {
        const Sums sums = sums_of(team, c, ranks.group.x, computed_here(ranks.group.rank0), ranks.group.before,
                                  ranks.out_of_range(), part == 1);
        if (team.thread == 0) {
          workspace.sums[4 * number + 2 * part] = sums.up;
          workspace.sums[4 * number + 2 * part + 1] = sums.down;
        }
      }
    });
  }
};

// Shared memory of FinishTiles: the weights, what scan_any() takes, and the samples by rank.
template <class V>
struct FinishMemory {
  V w[kTile], spare[kTile];
  uint32_t samples[kTile];
  static constexpr size_t all = (2 * sizeof(V) + sizeof(uint32_t)) * kTile;
};

// Results. Equal rewards get that of the first of them: where this is in a tile before, that tile is weighed too.
template <class V, bool usual>
struct FinishTiles : Pass<usual ? kUsualTeam : kTeam, usual ? 2 : 1> {
  template <int>
  static constexpr size_t kShared = FinishMemory<V>::all;

  template <int L>
  __device__ static void run(const Call& asked, const Workspace<V>& workspace) {
    Call call = asked;
    if constexpr (usual) say_usual(call);
    constexpr int I = kItems<L>;
    __shared__ struct {  // out of the registers' way
      int64_t number;    // of the tile that is weighed
      uint32_t end_of_tie;
      V y_of_tie;
    } waiting;
    FinishMemory<V>& memory = *reinterpret_cast<FinishMemory<V>*>(dynamic_shared());
    workspace.tiles.for_each([&](const Tile& wanted, int64_t own) {
      const Team<L> team = Team<L>().here();
      const bool is_maximum = !usual && call.op == Op::max_at_k;
      if (is_maximum && wanted.first > 0) return;
      if (!is_maximum) {
        bring_ahead<L>(workspace.sorting.samples + wanted.place() + wanted.first, wanted.samples(), team.thread,
                       memory.samples);
      }
      const uint32_t n = workspace.present[own], end = n - wanted.first < kTile ? n : wanted.first + kTile;
      const Tie tie = tie_with_before(team, workspace.sorting.keys + wanted.place(), wanted.first,
                                      wanted.first < n ? end : wanted.first);
      if (team.thread == 0) {
        waiting.number = tie.begin < wanted.first ? wanted.slot + tie.begin / kTile : own;
        waiting.end_of_tie = tie.end;
      }
      team.sync();
#pragma unroll 1
      while (true) {
        const int64_t number = waiting.number;
        const Tile tile = workspace.tiles.tiles[number];
        TileRanks<V, L> ranks(team, call, workspace, tile, number);
        set_weights_by_pieces<I>(team, ranks.shape, ranks.group.rank0, workspace.products[number], memory.w);
        const Coefficients<V> c(ranks.shape, memory.w);
        const auto beyond = [&](int part) {
          return Beyond{workspace.sums[4 * number + 2 * part], workspace.sums[4 * number + 2 * part + 1]};
        };
        const Beyond finite = beyond(0), infinite = ranks.out_of_range() ? beyond(1) : Beyond();
        V y[I];
        scan_any(team, c, ranks.group.x, ranks.group.top, ranks.group.rank0, ranks.group.before, finite, infinite,
                 ranks.out_of_range(), memory.spare, y);
        if (is_maximum) {
          if (team.thread == 0) {
            store_element(call.out, call.batch.dtype, tile.group * call.stride,
                          ranks.shape.k > 0 ? y[0] : not_a_number<V>());
          }
          break;
        }
        share_result(team, ranks.group.tied, y);
        if (waiting.number != own) {
          team.sync();
          if (team.thread == L - 1) {
            waiting.number = own;
            waiting.y_of_tie = y[I - 1];
          }
          team.sync();
          continue;
        }
        const uint32_t rank0 = computed_here(ranks.group.rank0);
        wait_for_copies();
        team.sync();
        uint32_t sample[I];
        load_ranks(memory.samples, rank0 - tile.first, kTile, sample);
#pragma unroll
        for (int i = 0; i < I; ++i) {
          const uint32_t rank = rank0 + i;
          if (rank >= tile.size) break;
          const bool counts = rank < ranks.group.n && ranks.shape.k > 0;
          store_element(call.out, call.batch.dtype, tile.begin + sample[i],
                        counts ? rank < waiting.end_of_tie ? waiting.y_of_tie : y[i] : V(0));
        }
        break;
      }
      team.sync();
    });
  }
};

// The largest incoming gradient of a tile; all of them, by rank, to where keys have gone.
template <class V>
__device__ inline V* gradients_by_rank(const Workspace<V>& workspace, const Tile& tile) {
  return reinterpret_cast<V*>(workspace.sorting.keys_to) + tile.place();
}

template <class V, int L>
__device__ inline void load_gradient_by_rank(const Workspace<V>& workspace, const Tile& tile,
                                             const TileShape<V, L>& its, double (&gy)[kItems<L>]) {
  V own[kItems<L>] = {};
  load_ranks(gradients_by_rank(workspace, tile), its.rank0, its.n, own);
#pragma unroll
  for (int i = 0; i < kItems<L>; ++i) gy[i] = own[i];
}

template <class V>
struct LargestGradients : Pass<kTeam, 2> {
  template <int L>
  __device__ static void run(const Call& call, const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each([&](const Tile& tile, int64_t number) {
      const TileShape<V, L> its(team, call, workspace, tile, number);
      Sorted<kItems<L>, V> group;
      group.n = its.n;
      group.rank0 = its.rank0;
      load_ranks(workspace.sorting.samples + tile.place(), its.rank0, tile.size, group.sample);
      double gy[kItems<L>];
      load_gradient(call, tile.begin, tile.group, group, gy);
      uint64_t largest = 0;
#pragma unroll
      for (int i = 0; i < kItems<L>; ++i) {
        group.x[i] = static_cast<V>(gy[i]);
        largest = Larger()(largest, magnitude(gy[i]));
      }
      store_ranks(gradients_by_rank(workspace, tile), its.rank0, tile.size, group.x);
      largest = team.parts(largest, uint64_t{0}, Larger()).all;
      if (team.thread == 0) workspace.largest[number] = largest;
    });
  }
};

// The largest of a tile becomes that of its group.
template <class V>
struct JoinLargest : Pass<kJoiners, 4> {
  template <int L>
  __device__ static void run(const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each_group([&](const Tile& tile, int64_t) {
      uint64_t* of_tiles = workspace.largest + tile.slot;
      uint64_t largest = 0;
      for (uint32_t t = team.thread; t < tile.tiles(); t += L) largest = Larger()(largest, of_tiles[t]);
      largest = team.parts(largest, uint64_t{0}, Larger()).all;
      for (uint32_t t = team.thread; t < tile.tiles(); t += L) of_tiles[t] = largest;
    });
  }
};

// Pairs of a tile's sums: of the tiles before it and of those after it.
template <class V>
__device__ inline Pair* pairs_of_sums(const Workspace<V>& workspace, int64_t tile) {
  return reinterpret_cast<Pair*>(workspace.sums + 4 * tile);
}

template <class V>
struct SumGradients : Pass<kTeam, 2> {
  template <int L>
  __device__ static void run(const Call& call, const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each([&](const Tile& tile, int64_t number) {
      const TileShape<V, L> its(team, call, workspace, tile, number);
      double gy[kItems<L>];
      load_gradient_by_rank(workspace, tile, its, gy);
      const Cuts cuts = cuts_for(workspace.largest[number], its.n);
      Pair piece[kItems<L>];
#pragma unroll
      for (int i = 0; i < kItems<L>; ++i) piece[i] = cut(gy[i], cuts);
      const Tree<kItems<L>, Pair, Add> tree(piece);
      const Pair all = team.parts(tree.all(), Pair{0, 0}, Add()).all;
      if (team.thread < 2) pairs_of_sums(workspace, number)[team.thread] = all;
    });
  }
};

// The sums of a tile become those of the tiles before it and of those after it.
template <class V>
struct JoinGradients : Pass<kJoiners, 4> {
  template <int L>
  __device__ static void run(const Workspace<V>& workspace) {
    const Team<L> team;
    workspace.tiles.for_each_group([&](const Tile& tile, int64_t) {
      const auto at = [&](int which) {
        return [&, which](int64_t t) -> Pair& { return pairs_of_sums(workspace, t)[which]; };
      };
      put_what_is_before(team, tile, Pair{0, 0}, Add(), at(0));
      put_what_is_after(team, tile, Pair{0, 0}, Add(), at(1));
    });
  }
};

// h by rank, and what the top rank's gradient is besides.
template <class V>
struct ScanGradients : Pass<kTeam, 1> {
  template <int>
  static constexpr size_t kShared = sizeof(double) * kTile;

  template <int L>
  __device__ static void run(const Call& call, const Workspace<V>& workspace) {
    workspace.tiles.for_each([&](const Tile& tile, int64_t number) {
      const Team<L> team = Team<L>().here();
      const TileShape<V, L> its(team, call, workspace, tile, number);
      double gy[kItems<L>], h[kItems<L>];
      load_gradient_by_rank(workspace, tile, its, gy);
      double* w = reinterpret_cast<double*>(dynamic_shared());
      set_weights_by_pieces<kItems<L>>(team, its.shape, its.rank0, workspace.products[number], w);
      const Coefficients<double> c(its.shape, w);
      const Cuts cuts = cuts_for(workspace.largest[number], its.n);
      const Pair* sums = pairs_of_sums(workspace, number);
      const double total = scan_gradient(team, c, its.rank0, gy, cuts, BeyondGradient{sums[0], sums[1]}, h);
      store_ranks(workspace.h + tile.place(), its.rank0, its.n, h);
      if (team.thread == 0) workspace.ends[number] = c.top != 0 ? -(c.top * total) : 0.0;
    });
  }
};

template <class V>
struct FinishGradients : Pass<kTeam, 2> {
  template <int L>
  __device__ static void run(const Call& call, const Workspace<V>& workspace) {
    workspace.tiles.for_each([&](const Tile& tile, int64_t number) {
      const Team<L> team = Team<L>().here();
      const TileRanks<V, L> ranks(team, call, workspace, tile, number);
      const double* h = workspace.h + tile.place();
      const uint32_t n = ranks.group.n, rank0 = ranks.group.rank0;
      uint32_t first[kItems<L>], last[kItems<L>];
      find_ties(team, ranks.group.tied, rank0, n, first, last);
      // Where equal rewards began before the tile, and where those end that go on behind it.
      const uint32_t begin = tie_with_before(team, ranks.keys, ranks.first, ranks.end).begin;
      uint32_t end = ranks.end;
      if (end < n && end > 0 && ranks.keys[end - 1] == ranks.keys[end]) {
        end = found_by_a_warp(
            team, [&] { return first_not_below(ranks.keys, ranks.end, n, KeyOf<V>(ranks.keys[ranks.end] + 1)); });
      }
      uint32_t sample[kItems<L>];
      load_ranks(workspace.sorting.samples + tile.place(), rank0, tile.size, sample);
#pragma unroll
      for (int i = 0; i < kItems<L>; ++i) {
        const uint32_t rank = rank0 + i;
        if (rank >= tile.size) break;
        double gx = 0;
        if (rank < n && ranks.shape.k > 0) {
          const uint32_t low = first[i] < ranks.first ? begin : first[i],
                         behind = last[i] < ranks.end ? last[i] + 1 : end;
          gx = share_of(h[low] - (behind < n ? h[behind] : workspace.ends[number]), behind - low);
        }
        store_element(call.out, call.batch.dtype, tile.begin + sample[i], static_cast<V>(gx));
      }
    });
  }
};

// All of it but the listing of the tiles. `gradients`: is it Op::backward?
#pragma nv_exec_check_disable
template <class V, bool usual, bool gradients, class Way>
__host__ __device__ void sort_and_weigh(const Call& call, const Workspace<V>& workspace, bool placed, Way& way) {
  sort_groups(call.batch, workspace.tiles, workspace.sorting, placed, way);
  way.template pass<MultiplyTiles<V>>(call, workspace);
  way.template pass<JoinProducts<V>>(workspace);
  if constexpr (gradients) {
    way.template pass<LargestGradients<V>>(call, workspace);
    way.template pass<JoinLargest<V>>(workspace);
    way.template pass<SumGradients<V>>(call, workspace);
    way.template pass<JoinGradients<V>>(workspace);
    way.template pass<ScanGradients<V>>(call, workspace);
    way.template pass<FinishGradients<V>>(call, workspace);
  } else {
    way.template pass<SumTiles<V, usual>>(call, workspace);
    way.template pass<JoinSums<V>>(workspace);
    way.template pass<FinishTiles<V, usual>>(call, workspace);
  }
}

}  // namespace pkpo::cuda
