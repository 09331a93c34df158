// Groups that share warps: a warp takes I samples a thread, 32 I of as many groups as fit, up to one. One launch; a
// warp goes on to further tiles, and forms its coefficients once where groups are alike.
//
//     rows -> shared memory -> registers -> sorted -> scanned -> shared memory -> rows
//
// Float32 is sorted by short keys, and again with all bits where that is not enough.
#pragma once

#include "cuda/group.cuh"

namespace pkpo::cuda {

constexpr int kSmallBlock = 128;

// A team's group by rank: of samples x[i], which have the numbers of number_of() from `first` on. values_at(samples,
// values) gives NaN where there is no sample.
template <int I, int L, class V, class ValuesAt>
__device__ inline void sort_group(const Team<L>& team, const V (&x)[I], uint32_t first, ValuesAt values_at,
                                  Sorted<I, V>& group) {
  using E = Entries<V>;
  V before = 0;
  bool rises = false, sorted = false;
  if constexpr (sizeof(V) == 4) {
    sorted = sort_by_short_keys(team, x, first, values_at, group.x, group.sample, before, rises);
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      group.sample[i] = first + (number_of<I>(team, i / 4) | i % 4);
      group.x[i] = x[i];
    }
  }
  if (!sorted) {
    typename E::Entry e[I];
#pragma unroll
    for (int i = 0; i < I; ++i) e[i] = E::make(group.x[i], group.sample[i]);
    sort_in_warp<L>(e, team.thread);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      group.sample[i] = E::sample(e[i]);
      group.x[i] = E::value(e[i]);
    }
    before = team.previous(group.x[I - 1]);
    if constexpr (sizeof(V) == 8) rises = is_rising(team, group.x, before);
  }
  look_at_neighbours(team, before, rises, group);
}

// So many blocks a multiprocessor shall hold at least, the most that leave every kernel its registers: of 65,536, 80 a
// thread for float32 in threads of their own, 96 for 8 samples, 128 for 16, 168 for float64 and for gradients.
template <class V, int I, int L, Op op>
constexpr int small_blocks() {
  return op == Op::backward || sizeof(V) == 8 ? 3 : I == 16 ? 4 : L == 1 ? 6 : 5;
}

// Groups of more than L * I samples are left alone: another launch does them.
template <class V, int I, int L, Op op>
__global__ void __launch_bounds__(kSmallBlock, small_blocks<V, I, L, op>()) small_groups(Call call) {
  using C = std::conditional_t<op == Op::backward, double, V>;
  constexpr int teams = kWarp / L, room = L * I, warps = kSmallBlock / kWarp, buffers = sizeof(V) == 4 ? 2 : 1;
  __shared__ __align__(16) V values_of_warps[buffers][warps][kWarp * I];
  __shared__ __align__(16) C common[room], weights_of_warps[warps][kWarp * I];
  __shared__ double h_of_warps[op == Op::backward ? warps : 1][op == Op::backward ? teams * (room + 1) : 1];
  const Batch& batch = call.batch;
  const Team<L> team;
  const int lane = Team<L>::lane(), warp = static_cast<int>(threadIdx.x) / kWarp, which = lane / L;

  __shared__ uint32_t n_of_common, k_of_common;  // what `common` is for; there, so as to take no registers
  const bool alike = !batch.offsets.data && (!batch.k.data || batch.k.stride == 0);
  const uint32_t width = static_cast<uint32_t>(batch.width), k = alike ? clamp_k(k_of(batch, 0), width, call.form) : 0;
  n_of_common = alike ? width : 0xffffffffu;
  k_of_common = k;
  if (alike) set_weights<I>(team, Shape{width, k, call.form}, team.thread * I, 1.0, common);
  __syncthreads();  // every warp wrote the same

  // The tile's piece of memory waits there too until results are written.
  __shared__ struct Stretch {
    int64_t begin;
    int count;
  } stretch_of_warps[warps];
  Stretch& stretch = stretch_of_warps[warp];

  const uint32_t step = gridDim.x * warps;
  int64_t tile = int64_t{blockIdx.x} * warps + warp;
  // Tiles that are full and need no conversion come while the one before is worked on.
  const bool come_ahead = buffers == 2 && batch.dtype == DType::float32 && !batch.offsets.data && batch.width == room &&
                          reinterpret_cast<uintptr_t>(batch.rewards) % 16 == 0;
  const auto comes_ahead = [&](int64_t of) { return come_ahead && (of + 1) * teams <= batch.count; };
  const auto fetch = [&](int64_t of, V* to) {
    if (!comes_ahead(of)) return;
    const V* from = static_cast<const V*>(batch.rewards) + of * (teams * room);
#pragma unroll
    for (int i = 0; i < I / 4; ++i) copy_ahead(to + 4 * (i * kWarp + lane), from + 4 * (i * kWarp + lane));
  };
  fetch(tile, values_of_warps[0][warp]);
  for (uint32_t turn = 0; tile * teams < batch.count; tile += step, turn ^= buffers - 1) {
    V* values = values_of_warps[turn][warp];
    // Groups lie one after another, so that a tile is one piece of memory, of `count` samples from `begin` on; unless a
    // large group is among them. A sample's number counts from `origin`, whose value is own[0]: the beginning of its
    // group or, where all groups fill their room, of the tile; then `first` is the number of the group's first.
    const int64_t g = tile * teams + which;
    int64_t begin = 0, origin = 0;
    int count = 0;
    uint32_t size = 0;
    bool is_group = true, is_large = false, one_piece = true, is_full = false;
    V* own = values;
    if (!batch.offsets.data) {
      const int64_t left = batch.count - tile * teams;
      const int groups = left < teams ? static_cast<int>(left) : teams;
      begin = tile * teams * batch.width;
      count = groups * static_cast<int>(width);
      is_group = which < groups;
      is_full = count == teams * room;
      size = is_group ? width : 0;
      const uint32_t before = is_full ? 0 : which * width;
      origin = begin + before;
      own += before;
    } else {
      is_group = g < batch.count;
      Extent extent = extent_of(batch, is_group ? g : batch.count - 1);
      if (!is_group) extent = {extent.begin + extent.size, 0};
      is_large = extent.size > static_cast<uint32_t>(room);
      if (__all_sync(kAllLanes, is_large || !is_group)) continue;
      origin = extent.begin;
      size = is_large ? 0 : extent.size;
      begin = __shfl_sync(kAllLanes, extent.begin, 0);
      const int64_t end = __shfl_sync(kAllLanes, extent.begin + extent.size, kWarp - 1);
      const bool fits =
          !is_large && extent.begin >= begin && extent.begin + extent.size <= end && end - begin <= kWarp * I;
      one_piece = __all_sync(kAllLanes, fits) != 0;
      count = static_cast<int>(end - begin);
      own += one_piece ? static_cast<int>(extent.begin - begin) : which * room;
    }
    const uint32_t first = is_full ? which * room : 0, limit = is_full ? kWarp * I : size;
    if (comes_ahead(tile)) {
      wait_for_copies();
      fetch(tile + step, values_of_warps[turn ^ (buffers - 1)][warp]);
    } else if (one_piece) {
      load_chunk<kWarp, I>(batch.rewards, batch.dtype, begin, count, values, lane);
    } else {
#pragma unroll 1
      for (uint32_t i = team.thread; i < size; i += L) own[i] = load_element<V>(batch.rewards, batch.dtype, origin + i);
    }
    stretch = {begin, count};
    __syncwarp();

    // Where all is full, from `values`, though own is the same: one code for both spills (sm_80).
    const auto values_at = [&](const uint32_t (&sample)[I], V(&value)[I]) {
      if (is_full) {
#pragma unroll
        for (int i = 0; i < I; ++i) value[i] = values[sample[i]];
      } else {
#pragma unroll
        for (int i = 0; i < I; ++i) value[i] = sample[i] < size ? own[sample[i]] : not_a_number<V>();
      }
    };
    V x[I];
    get_samples(team, is_full, values + first, own, size, x);
    Sorted<I, V> group;
    group.rank0 = computed_here(team.thread * I);
    sort_group<I, L>(team, x, first, values_at, group);
    Shape shape{group.n, k_of_common, call.form};
    const C* w = common;
    if (team.any(group.n != n_of_common)) {
      shape.k = clamp_k(is_group ? k_of(batch, g) : 1, group.n, call.form);
      C* of_team = weights_of_warps[warp] + computed_here(which * room);
      set_weights<I>(team, shape, group.rank0, 1.0, of_team);
      w = of_team;
    }
    const Coefficients<C> c(shape, w);

    double* h = nullptr;
    if constexpr (op == Op::backward) h = h_of_warps[warp] + which * (room + 1);
    weigh_for<op>(call, team, c, origin, g, h, values + computed_here(which * room), group);

    if constexpr (op == Op::max_at_k) {
      if (team.thread == 0 && is_group && !is_large) {
        store_element(call.out, batch.dtype, g * call.stride, group.n > 0 ? group.x[0] : not_a_number<V>());
      }
    } else {
      __syncwarp();  // all have read their samples
      put_results(team, group, shape.k > 0, limit, own);
      __syncwarp();
      if (one_piece) {
        store_chunk<kWarp, I>(values, call.out, batch.dtype, stretch.begin, stretch.count, lane);
      } else {
#pragma unroll 1
        for (uint32_t i = team.thread; i < size; i += L) store_element(call.out, batch.dtype, origin + i, own[i]);
      }
    }
    __syncwarp();  // before the next tile
  }
}

}  // namespace pkpo::cuda
