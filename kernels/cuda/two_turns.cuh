// Groups of one size that have more samples than a block's registers hold, up to twice as many: a block each, I samples
// a thread and turn. Both halves are sorted, one after the other, and left in shared memory; merged there; and weighed
// half by half, each knowing what the other comes to. One launch, no memory beside the output.
#pragma once

#include "cuda/block.cuh"

namespace pkpo::cuda {

// Shared memory of a block, up to 153 KB. Keys by rank stand first, which give way to the results by rank, or to h, and
// those to the row of results; then samples by rank, then the weights of one turn, and before there are any, the lower
// half of what is merged. A turn is sorted where nothing of the turn before stands.
template <class V, int L, int I, Op op>
struct TwoTurns {
  using C = std::conditional_t<op == Op::backward, double, V>;
  using Key = KeyOf<V>;
  using Both = Shelf<typename Entries<V>::Entry, I, true>;
  static constexpr uint32_t kTurn = L * I, kRanks = 2 * kTurn;
  static constexpr size_t aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }
  static constexpr size_t larger(size_t a, size_t b) { return a > b ? a : b; }
  static constexpr size_t keys = sizeof(Key) * Both::place(kRanks), h = sizeof(double) * (kRanks + 1);
  static constexpr size_t samples = aligned(op == Op::backward ? larger(keys, h) : keys);
  static constexpr size_t turn = aligned(samples + sizeof(uint16_t) * Both::place(kTurn));
  static constexpr size_t to_sort = larger(sizeof(V) * (kTurn + kPlaces), Both::bytes(kTurn));
  static constexpr size_t weights = aligned(samples + sizeof(uint16_t) * Both::place(kRanks));
  static constexpr size_t all = larger(turn + to_sort, weights + larger(sizeof(C) * kTurn, Both::bytes(kTurn)));
  static_assert(sizeof(V) * (kRanks + kPlaces) <= all && all <= 153 * 1024);

  __device__ static Both both() { return Both(dynamic_shared(), dynamic_shared() + samples); }
  __device__ static Both merged() { return Both(dynamic_shared() + weights, kTurn); }
  __device__ static C* w() { return reinterpret_cast<C*>(dynamic_shared() + weights); }
};

// The samples of a group, `size` of them from `begin` on, by rank.
template <class Memory, class V, int L, int I>
__device__ inline void sort_in_two_turns(const Team<L>& team, const Batch& batch, int64_t begin, uint32_t size) {
  using Entry = typename Entries<V>::Entry;
  constexpr uint32_t kTurn = Memory::kTurn;
  const auto both = Memory::both(), merged = Memory::merged();
  Entry e[I];
  const auto put = [&](const typename Memory::Both& to, uint32_t rank, uint32_t moved_by) {
#pragma unroll
    for (int i = 0; i < I; ++i) to.put(rank + i, Entries<V>::moved(e[i], moved_by));
  };
#pragma unroll 1
  for (uint32_t first = 0; first < Memory::kRanks; first += kTurn) {
    const uint32_t left = size - first, its_size = left < kTurn ? left : kTurn;
    sort_in_block<V, true>(team, batch, begin + first, its_size, dynamic_shared() + Memory::turn, e);
    put(both, first + team.thread * I, first);
  }
  __syncthreads();
  const uint32_t rank = computed_here(team.thread * I);
  merge_on_shelf<I>(both, 0, kTurn, kTurn, rank, e);
  put(merged, rank, 0);
  const bool is_any = kTurn + rank < size;
  if (is_any) merge_on_shelf<I>(both, 0, kTurn, kTurn, kTurn + rank, e);
  __syncthreads();
  if (is_any) put(both, kTurn + rank, 0);
#pragma unroll
  for (int i = 0; i < I; ++i) both.put(rank + i, merged.get(rank + i));
  __syncthreads();
}

// What holds for a group, and what its halves need of each other: out of the registers' way.
template <class V>
struct Known {
  int64_t group;
  Shape shape;
  KeyOf<V> top, below;  // of the top rank, and of the lower half's last
  bool out_of_range;
  // The ranks on both sides of where the halves meet that are equal; begin == end where there are none.
  struct Tie {
    uint32_t begin, end;
  } tie;
  double product;         // of the upper half's factors
  Sums finite, infinite;  // of the other half
  V y;                    // of the lower half's last rank
  Cuts cuts;
  Pair sums[2];  // of incoming gradients, of both halves
};

// Finds it out of group g, which is sorted; `has_ties`: equal ranks where the halves meet too?
template <class Memory, bool has_ties, class V, int L>
__device__ inline void look_at_group(const Team<L>& team, const Call& call, int64_t g, uint32_t size, Known<V>& known) {
  using Key = KeyOf<V>;
  const auto both = Memory::both();
  constexpr uint32_t kTurn = Memory::kTurn;
  constexpr Key kAbsent = ~Key(0);
  if (team.thread >= kWarp) return;
  const uint32_t n = both[size - 1] == kAbsent ? first_not_below(both, 0, size, kAbsent) : size;
  const Key top = n > 0 ? both[n - 1] : key_of(V(0)), below = both[kTurn - 1];
  typename Known<V>::Tie tie{kTurn, kTurn};
  if (has_ties && n > kTurn && both[kTurn] == below) {
    tie = {first_not_below(both, 0, kTurn, below), first_not_below(both, kTurn, n, Key(below + 1))};
  }
  if (team.thread > 0) return;
  known.group = g;
  known.shape = {n, clamp_k(k_of(call.batch, g), n, call.form), call.form};
  known.top = top;
  known.below = below;
  known.out_of_range = n > 0 && !(is_in_range(value_of(both[0])) && is_in_range(value_of(top)));
  known.tie = tie;
}

// A turn's ranks, from `first` on, but for what the samples are.
template <class Memory, class V, int L, int I>
__device__ inline void get_ranks(const Team<L>& team, uint32_t first, const Known<V>& known, Sorted<I, V>& group) {
  const auto both = Memory::both();
  const uint32_t rank0 = first + computed_here(team.thread * I), n = known.shape.n;
  const KeyOf<V> top = known.top;
  KeyOf<V> key[I];
#pragma unroll
  for (int i = 0; i < I; ++i) key[i] = rank0 + i < n ? both[rank0 + i] : top;
  KeyOf<V> before = rank0 == 0 ? key[0] : top;
  if (rank0 > 0 && rank0 <= n) before = team.thread == 0 ? known.below : both[rank0 - 1];
  group.n = n;
  group.rank0 = rank0;
  set_by_keys(key, before, top, group);
}

// Which samples they are.
template <class Memory, class V, int L, int I>
__device__ inline void get_samples_by_rank(const Team<L>& team, uint32_t first, const Known<V>& known,
                                           Sorted<I, V>& group) {
  const auto both = Memory::both();
  group.n = known.shape.n;
  group.rank0 = first + computed_here(team.thread * I);
#pragma unroll
  for (int i = 0; i < I; ++i) group.sample[i] = both.samples[both.place(group.rank0 + i)];
}

// From both halves' results, x of a rank, to the row of them; it is shared memory's first, whatever stood there.
template <class V, int L, int I>
__device__ inline void put_row(const Team<L>& team, const Call& call, const Known<V>& known, uint32_t size,
                               const Sorted<I, V>& low, const Sorted<I, V>& high) {
  const int64_t begin = known.group * size;
  V* values = reinterpret_cast<V*>(dynamic_shared());
  const int place = place_of(call.batch.rewards, call.batch.dtype, begin);
  team.sync();
  put_results(team, low, known.shape.k > 0, size, values + place);
  put_results(team, high, known.shape.k > 0, size, values + place);
  team.sync();
  store_row<L, 2 * I>(values, call.out, call.batch.dtype, begin, place, static_cast<int>(size), team.thread);
}

// transform and max_at_k of a group that is sorted.
template <class Memory, class V, int I, int L>
__device__ inline void weigh_in_two_turns(const Team<L>& team, const Call& call, uint32_t size, Known<V>& known) {
  constexpr uint32_t kTurn = Memory::kTurn;
  const auto both = Memory::both();
  V* results = reinterpret_cast<V*>(both.keys);  // by rank, where their keys were

  // The upper half is looked at for what the lower one needs of it, which is done then, and leaves what the upper one
  // needs.
#pragma unroll 1
  for (int step = 0; step < 3; ++step) {
    const bool is_upper = step != 1;
    const uint32_t first = is_upper ? kTurn : 0;
    Sorted<I, V> group;
    get_ranks<Memory>(team, first, known, group);
    const double product =
        set_weights_by_pieces<I>(team, known.shape, group.rank0, is_upper ? 1.0 : known.product, Memory::w());
    const Coefficients<V> c(known.shape, Memory::w());
    Beyond finite, infinite;
    if (step > 0) {
      (is_upper ? finite.below : finite.above) = is_upper ? known.finite.up : known.finite.down;
      (is_upper ? infinite.below : infinite.above) = is_upper ? known.infinite.up : known.infinite.down;
    }
    if (step == 0 ? c.shape.has_down() : step == 1 && c.shape.has_up()) {
#pragma unroll 1
      for (int part = known.out_of_range ? 1 : 0; part >= 0; --part) {
        const Sums sums =
            sums_of(team, c, group.x, computed_here(group.rank0), group.before, known.out_of_range, part == 1);
        team.sync();
        if (team.thread == 0) (part == 1 ? known.infinite : known.finite) = sums;
      }
    }
    if (step == 0) {
      if (team.thread == 0) known.product = product;
      team.sync();
      continue;
    }
    uint32_t tied_with_lower = 0;  // which ranks have the value of the lower half's last
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if (is_upper && group.rank0 + i < group.n && group.x[i] == value_of(known.below)) tied_with_lower |= 1u << i;
    }
    V y[I];
    scan_any(team, c, group.x, group.top, group.rank0, group.before, finite, infinite, known.out_of_range,
             results + both.place(first), y);
    share_result(team, group.tied, y);
    if (call.op == Op::max_at_k) {
      if (team.thread == 0) {
        store_element(call.out, call.batch.dtype, known.group * call.stride,
                      known.shape.k > 0 ? y[0] : not_a_number<V>());
      }
      return;
    }
    if (tied_with_lower) {
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (tied_with_lower >> i & 1) y[i] = known.y;
      }
    }
    team.sync();
    if (team.thread == L - 1 && !is_upper) known.y = y[I - 1];
    const uint32_t rank0 = first + computed_here(team.thread * I);
#pragma unroll
    for (int i = 0; i < I; ++i) results[both.place(rank0 + i)] = y[i];
    team.sync();
  }

  Sorted<I, V> low, high;
  const auto get = [&](uint32_t first, Sorted<I, V>& group) {
    get_samples_by_rank<Memory>(team, first, known, group);
#pragma unroll
    for (int i = 0; i < I; ++i) group.x[i] = results[both.place(group.rank0 + i)];
  };
  get(0, low);
  get(kTurn, high);
  put_row(team, call, known, size, low, high);
}

// The gradient of a group that is sorted.
template <class Memory, class V, int I, int L>
__device__ inline void weigh_gradient_in_two_turns(const Team<L>& team, const Call& call, uint32_t size,
                                                   Known<V>& known) {
  constexpr uint32_t kTurn = Memory::kTurn;
  double* h = reinterpret_cast<double*>(dynamic_shared());
  const auto get_gradients = [&](uint32_t first, double (&gy)[I]) {
    Sorted<I, V> group;
    get_samples_by_rank<Memory>(team, first, known, group);
    load_gradient(call, known.group * size, known.group, group, gy);
  };
  uint32_t tied = 0;  // of the lower half, and of the upper one behind them
  uint64_t largest = 0;
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {
    Sorted<I, V> group;
    get_ranks<Memory>(team, turn * kTurn, known, group);
    tied |= group.tied << turn * I;
    double gy[I];
    get_gradients(turn * kTurn, gy);
#pragma unroll
    for (int i = 0; i < I; ++i) largest = Larger()(largest, magnitude(gy[i]));
  }
  largest = team.parts(largest, uint64_t{0}, Larger()).all;
  if (team.thread == 0) known.cuts = cuts_for(largest, known.shape.n);
  team.sync();

  // Sums of a half are exact: what lies beyond it may come whole.
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {
    double gy[I];
    get_gradients(turn * kTurn, gy);
    const Cuts cuts = known.cuts;
    Pair own{0, 0};
#pragma unroll
    for (int i = 0; i < I; ++i) own = Add()(own, cut(gy[i], cuts));
    own = team.parts(own, Pair{0, 0}, Add()).all;
    if (team.thread == 0) known.sums[turn] = own;
  }
  team.sync();
#pragma unroll 1
  for (int turn = 1; turn >= 0; --turn) {
    const uint32_t rank0 = turn * kTurn + computed_here(team.thread * I), n = known.shape.n;
    const double product = set_weights_by_pieces<I>(team, known.shape, rank0, turn ? 1.0 : known.product, Memory::w());
    const Coefficients<double> c(known.shape, Memory::w());
    double gy[I], own[I];
    get_gradients(turn * kTurn, gy);
    BeyondGradient beyond;
    (turn ? beyond.below : beyond.above) = known.sums[1 - turn];
    const double total = scan_gradient(team, c, rank0, gy, known.cuts, beyond, own);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if (rank0 + i < n) h[rank0 + i] = own[i];
    }
    if (team.thread == 0) {
      known.product = product;
      h[n] = c.top != 0 ? -(c.top * total) : 0.0;
    }
    team.sync();
  }

  Sorted<I, V> low, high;
  const auto get = [&](int turn, Sorted<I, V>& group) {
    const uint32_t n = known.shape.n, begin_of_turn = turn * kTurn < n ? turn * kTurn : n,
                   end_of_turn = n - begin_of_turn < kTurn ? n : begin_of_turn + kTurn;
    group.n = n;
    group.rank0 = turn * kTurn + computed_here(team.thread * I);
    uint32_t first[I], last[I];
    find_ties(team, tied >> turn * I & ((1u << I) - 1), group.rank0, n, first, last);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      group.x[i] = 0;
      if (group.rank0 + i >= n) continue;
      const uint32_t from = first[i] < begin_of_turn ? known.tie.begin : first[i],
                     behind = last[i] < end_of_turn ? last[i] + 1 : known.tie.end;
      group.x[i] = static_cast<V>(share_of(h[from] - h[behind], behind - from)) + V(0);  // no zero is negative
    }
  };
  get(0, low);
  get(1, high);
  get_samples_by_rank<Memory>(team, 0, known, low);
  get_samples_by_rank<Memory>(team, kTurn, known, high);
  put_row(team, call, known, size, low, high);
}

template <class V, int L, int I, Op op, bool usual>
__global__ void __launch_bounds__(L, 1) two_turn_groups(Call call) {
  if constexpr (usual) say_usual(call);
  using Memory = TwoTurns<V, L, I, op>;
  __shared__ Known<V> known;
  const uint32_t size = static_cast<uint32_t>(call.batch.width);
  for (int64_t g = blockIdx.x; g < call.batch.count; g = known.group + gridDim.x) {
    const Team<L> team = Team<L>().here();
    sort_in_two_turns<Memory, V, L, I>(team, call.batch, g * size, size);
    look_at_group<Memory, op == Op::backward>(team, call, g, size, known);
    team.sync();
    if constexpr (op == Op::backward) {
      weigh_gradient_in_two_turns<Memory, V, I>(team, call, size, known);
    } else {
      weigh_in_two_turns<Memory, V, I>(team, call, size, known);
    }
    team.sync();
  }
}

}  // namespace pkpo::cuda
