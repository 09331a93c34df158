// Groups that take a block each, I samples a thread. One launch; a block goes on to further groups.
#pragma once

#include "cuda/group.cuh"
#include "cuda/rows.cuh"

namespace pkpo::cuda {

// Shared memory of a block: what sorting and results need, then the weights. Behind the results the samples by rank
// wait while registers are scarce. At most 83 KB, of the 99 that a block may have on the smallest GPUs.
template <class V, int L, int I, Op op>
struct BlockMemory {
  using C = std::conditional_t<op == Op::backward, double, V>;
  static constexpr bool narrow = L * I > 4096;
  static constexpr size_t shelf = Shelf<typename Entries<V>::Entry, I, narrow>::bytes(L * I);
  static constexpr size_t results =
      op == Op::backward ? sizeof(double) * (L * I + kPlaces) : sizeof(V) * (L * I + kPlaces);
  static constexpr size_t samples = (results + 15) / 16 * 16, end = samples + sizeof(uint16_t) * L * I;
  static constexpr size_t weights = ((shelf > end ? shelf : end) + 15) / 16 * 16;
  static constexpr size_t all = weights + sizeof(C) * L * I;
  static_assert(all <= 83 * 1024);
};

// Samples begin .. begin + size - 1, sorted. `memory` is the block's, free again afterwards.
template <class V, bool narrow, int L, int I>
__device__ inline void sort_in_block(const Team<L>& team, const Batch& batch, int64_t begin, uint32_t size,
                                     void* memory, typename Entries<V>::Entry (&e)[I]) {
  using E = Entries<V>;
  const uint32_t warp = computed_here(team.thread) / kWarp;
  const Team<kWarp> of_warp;
  V* values = static_cast<V*>(memory);
  const int place = place_of(batch.rewards, batch.dtype, begin);
  load_row<L, I>(batch.rewards, batch.dtype, begin, place, static_cast<int>(size), values, team.thread);
  values += place;
  __syncthreads();
  constexpr uint32_t of_a_warp = kWarp * I;
  const uint32_t first = warp * of_a_warp, last = size > first ? size - first : 0;
  const bool is_full = last >= of_a_warp && place % 4 == 0;  // else 16 bytes at once do not lie as they must
  const auto values_at = [&](const uint32_t (&sample)[I], V(&value)[I]) {
    if (is_full) {
#pragma unroll
      for (int i = 0; i < I; ++i) value[i] = values[sample[i]];
    } else {
#pragma unroll
      for (int i = 0; i < I; ++i) value[i] = sample[i] < size ? values[sample[i]] : not_a_number<V>();
    }
  };
  if (L > 2 * kWarp && last == 0) {  // none of the warp's samples is there; two warps nearly always have some
#pragma unroll
    for (int i = 0; i < I; ++i) e[i] = E::make(not_a_number<V>(), team.thread * I + i);
  } else {
    uint32_t sample[I];
    V x[I], value[I];
    get_samples(of_warp, is_full, values + first, values + first, last, x);
    bool sorted = false;
    if constexpr (sizeof(V) == 4) {
      V before, top;
      bool rises;
      const uint32_t there = last < of_a_warp ? last : of_a_warp;
      sorted = sort_by_short_keys(of_warp, x, first, is_full, there, values_at, value, sample, before, top, rises);
    } else {
#pragma unroll
      for (int i = 0; i < I; ++i) {
        sample[i] = first + (number_of<I>(of_warp, i / 4) | i % 4);
        value[i] = x[i];
      }
    }
#pragma unroll
    for (int i = 0; i < I; ++i) e[i] = E::make(value[i], sample[i]);
    if (!sorted) sort_in_warp(of_warp, e, of_warp.thread);
  }
  merge_warps<L>(e, team.thread, size, Shelf<typename E::Entry, I, narrow>(memory, L * I));
}

template <class V, int L, int I>
__device__ inline void unpack(const Team<L>& team, const typename Entries<V>::Entry (&e)[I], uint32_t size,
                              Sorted<I, V>& group) {
  using E = Entries<V>;
#pragma unroll
  for (int i = 0; i < I; ++i) {
    group.x[i] = E::value(e[i]);
    group.sample[i] = E::sample(e[i]);
  }
  group.rank0 = computed_here(team.thread * I);
  const V before = team.previous(group.x[I - 1]);
  const bool is_full = size == L * I;
  group.top = top_of(team, group.x, is_full, size);
  look_at_neighbours<Groups::any>(team, is_full, size, before, is_rising(team, group.x, before, group.top), group);
}

// So many blocks a multiprocessor shall hold at least: 128 registers a thread, or 96.
template <int L, bool usual>
constexpr int blocks_at_once = (usual && L <= 128 ? 640 : 512) / L;

// Groups of `smallest` to L * I samples; others are left alone.
template <class V, int L, int I, Op op, bool usual>
__global__ void __launch_bounds__(L, blocks_at_once<L, usual>) block_groups(Call call, uint32_t smallest) {
  if constexpr (usual) say_usual(call);
  using C = std::conditional_t<op == Op::backward, double, V>;
  void* memory = dynamic_shared();
  V* values = static_cast<V*>(memory);
  const Batch& batch = call.batch;
  using Memory = BlockMemory<V, L, I, op>;
  C* w = reinterpret_cast<C*>(dynamic_shared() + Memory::weights);
  uint16_t* samples = reinterpret_cast<uint16_t*>(dynamic_shared() + Memory::samples);
  // Out of the registers' way: the group size and k that w is for, where groups are alike, and what a warp needs to go
  // on.
  __shared__ uint32_t n_of_w, k_of_w;
  n_of_w = 0xffffffffu;
  k_of_w = 0;
  __shared__ struct Waiting {
    int64_t base, group;
    uint32_t at;
    Extent extent;
  } waiting_of_warps[L / kWarp];
  const auto waiting = [&]() -> Waiting& { return waiting_of_warps[thread_here() / kWarp]; };

  const auto weigh_group = [&] {
    const Team<L> team = Team<L>().here();
    const Extent extent = waiting().extent;
    typename Entries<V>::Entry e[I];
    sort_in_block<V, Memory::narrow>(team, batch, extent.begin, extent.size, memory, e);
    Sorted<I, V> group;
    unpack<V>(team, e, extent.size, group);
    Shape shape{group.n, k_of_w, call.form};
    if (group.n != n_of_w) {  // all have asked before one of them writes: forming the weights, they wait for each other
      shape.k = clamp_k(k_of(batch, waiting().group), group.n, call.form);
      set_weights_by_pieces<I>(team, shape, group.rank0, 1.0, w);
      if (!batch.offsets.data && has_one_k(batch)) {
        n_of_w = group.n;
        k_of_w = shape.k;
      }
    }
    const Coefficients<C> c(shape, w);

#pragma unroll
    for (int i = 0; i < I; ++i) samples[group.rank0 + i] = static_cast<uint16_t>(group.sample[i]);
    const Team<L> again = team.here();
    group.rank0 = again.thread * I;
    weigh_for<op>(call, again, c, waiting().extent.begin, waiting().group, static_cast<double*>(memory), values, group);

    if constexpr (op == Op::max_at_k) {
      if (again.thread == 0) {
        store_element(call.out, batch.dtype, waiting().group * call.stride,
                      group.n > 0 ? group.x[0] : not_a_number<V>());
      }
    } else {
      again.sync();
#pragma unroll
      for (int i = 0; i < I; ++i) group.sample[i] = samples[again.thread * I + i];
      const Extent its = waiting().extent;
      const int place = place_of(batch.rewards, batch.dtype, its.begin);
      put_results(again, group, shape.k > 0, its.size, values + place);
      again.sync();
      store_row<L, I>(values, call.out, batch.dtype, its.begin, place, static_cast<int>(its.size), again.thread);
    }
    __syncthreads();
  };

  // A turn is so many groups, one after another. Where they differ in size a thread looks at up to kLooks of them, and
  // finds those that are wanted here; few enough, so that every block gets some.
  constexpr uint32_t kLooks = 4, kMost = kLooks * L;
  __shared__ uint32_t wanted[kMost / kWarp];  // a bit each
  const bool ragged = batch.offsets.data != nullptr;
  uint32_t turn = 1;
  if (ragged) {
    const int64_t each = (batch.count - 1) / gridDim.x + 1;
    turn = each < kMost ? static_cast<uint32_t>(each) : kMost;
  } else {
    wanted[0] = 1;
    __syncthreads();
  }
  for (int64_t base = int64_t{blockIdx.x} * turn; base < batch.count; base += int64_t{gridDim.x} * turn) {
    if (ragged) {
      bool is_any = false;
#pragma unroll
      for (uint32_t look = 0; look < kLooks; ++look) {
        const uint32_t at = look * L + thread_here();
        const uint32_t size = at < turn && base + at < batch.count ? extent_of(batch, base + at).size : 0;
        const uint32_t bits = __ballot_sync(kAllLanes, size >= smallest && size <= L * I);
        if (Team<L>::lane() == 0) wanted[at / kWarp] = bits;
        is_any = is_any || bits != 0;
      }
      if (!Team<L>().any(is_any)) continue;
    }
    uint32_t at = 0;
    while (true) {
      while (at < turn && !(wanted[at / kWarp] >> at % kWarp)) at = at / kWarp * kWarp + kWarp;
      if (at >= turn) break;
      at += __ffs(static_cast<int>(wanted[at / kWarp] >> at % kWarp)) - 1;
      waiting() = {base, base + at, at + 1, extent_of(batch, base + at)};
      __syncwarp();
      weigh_group();
      base = waiting().base;
      at = waiting().at;
      __syncwarp();  // before one of them goes on and writes
    }
    if (ragged) __syncthreads();  // before the next turn's are written
  }
}

}  // namespace pkpo::cuda
