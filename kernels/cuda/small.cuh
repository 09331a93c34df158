// Groups of up to 256 samples: a warp takes 256 samples (128 for groups of up to four) of as many groups as fit, 8 (4)
// samples a thread. One launch; a warp goes on to further tiles, and forms its coefficients once where groups are
// alike.
//
//     rows -> shared memory -> registers -> sorted -> scanned -> shared memory -> rows
//
// Float32 is sorted by short keys, and again with all bits where that is not enough.
#pragma once

#include "cuda/group.cuh"

namespace pkpo::cuda {

constexpr int kSmallBlock = 128;
constexpr int kLargestSmall = 256;

// How many of `size` samples are present.
template <int I, int L, class V>
__device__ inline uint32_t count_present(const Team<L>& team, uint32_t size, const V (&x)[I]) {
  uint32_t absent = 0;
#pragma unroll
  for (int i = 0; i < I; ++i) absent += x[i] != x[i] && static_cast<uint32_t>(i * L + team.thread) < size;
  return team.any(absent > 0) ? size - team.parts(absent, 0u, Add()).all : size;
}

// Values and samples of a team's group by rank; value_at(sample) is NaN where there is none.
template <int I, int L, class V, class ValueAt>
__device__ inline void sort_group(const Team<L>& team, const V (&x)[I], ValueAt value_at, Sorted<I, V>& group) {
  using E = Entries<V>;
  if constexpr (sizeof(V) == 4) {
    if (sort_by_short_keys<I, L>(team, x, value_at, group.sample, group.x)) return;
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      group.sample[i] = i * L + team.thread;
      group.x[i] = x[i];
    }
  }
  typename E::Entry e[I];
#pragma unroll
  for (int i = 0; i < I; ++i) e[i] = E::make(group.x[i], group.sample[i]);
  sort_in_warp<L>(e, team.thread);
#pragma unroll
  for (int i = 0; i < I; ++i) {
    group.sample[i] = E::sample(e[i]);
    group.x[i] = E::value(e[i]);
  }
}

// So many blocks a multiprocessor shall hold at least, the most that leave every kernel its registers: of 65,536, 96 a
// thread for float32, 168 for float64 and for gradients.
template <class V, Op op>
constexpr int small_blocks() {
  return op == Op::backward || sizeof(V) == 8 ? 3 : 5;
}

// Groups of more than L * I samples are left alone: another launch does them.
template <class V, int I, int L, Op op>
__global__ void __launch_bounds__(kSmallBlock, small_blocks<V, op>()) small_groups(Call call) {
  using C = std::conditional_t<op == Op::backward, double, V>;
  constexpr int teams = kWarp / L, room = L * I, warps = kSmallBlock / kWarp;
  __shared__ __align__(16) V values_of_warps[warps][kWarp * I];
  __shared__ __align__(16) C common[room], weights_of_warps[warps][kWarp * I];
  __shared__ double h_of_warps[op == Op::backward ? warps : 1][op == Op::backward ? teams * (room + 1) : 1];
  const Batch& batch = call.batch;
  const Team<L> team;
  const int lane = Team<L>::lane(), warp = static_cast<int>(threadIdx.x) / kWarp, which = lane / L;
  V* values = values_of_warps[warp];

  __shared__ uint32_t n_of_common;  // the group size that `common` is for; there, so as to take no register
  const bool alike = !batch.offsets.data && (!batch.k.data || batch.k.stride == 0);
  n_of_common = alike ? static_cast<uint32_t>(batch.width) : 0xffffffffu;
  if (alike) {
    const uint32_t n = static_cast<uint32_t>(batch.width);
    set_weights<I>(team, Shape{n, clamp_k(k_of(batch, 0), n, call.form), call.form}, team.thread * I, 1.0, common);
  }
  __syncthreads();  // every warp wrote the same

  const int64_t step = int64_t{gridDim.x} * warps;
  for (int64_t tile = int64_t{blockIdx.x} * warps + warp; tile * teams < batch.count; tile += step) {
    const int64_t g = tile * teams + which;
    const bool is_group = g < batch.count;
    Extent extent = extent_of(batch, is_group ? g : batch.count - 1);
    if (!is_group) extent = {extent.begin + extent.size, 0};
    const bool is_large = extent.size > static_cast<uint32_t>(room);
    // Groups lie one after another, so that a tile is one piece of memory; unless a large group is among them.
    const int64_t begin = __shfl_sync(kAllLanes, extent.begin, 0);
    const int64_t end = __shfl_sync(kAllLanes, extent.begin + extent.size, kWarp - 1);
    const bool fits =
        !is_large && extent.begin >= begin && extent.begin + extent.size <= end && end - begin <= kWarp * I;
    const bool one_piece = __all_sync(kAllLanes, fits) != 0;
    const uint32_t size = is_large ? 0 : extent.size;
    V* own = values + (one_piece ? static_cast<int>(extent.begin - begin) : which * room);
    if (one_piece) {
      load_chunk(batch.rewards, batch.dtype, begin, static_cast<int>(end - begin), values, lane, kWarp);
    } else {
      for (uint32_t i = team.thread; i < size; i += L)
        own[i] = load_element<V>(batch.rewards, batch.dtype, extent.begin + i);
    }
    __syncwarp();

    const auto value_at = [&](uint32_t sample) { return sample < size ? own[sample] : not_a_number<V>(); };
    V x[I];
#pragma unroll
    for (int i = 0; i < I; ++i) x[i] = value_at(i * L + team.thread);
    Sorted<I, V> group;
    group.rank0 = computed_here(team.thread * I);
    group.n = count_present<I>(team, size, x);
    const int64_t k = is_group ? k_of(batch, g) : 1;
    const Shape shape{group.n, clamp_k(k, group.n, call.form), call.form};
    const C* w = common;
    if (team.any(group.n != n_of_common)) {
      C* of_team = weights_of_warps[warp] + computed_here(which * room);
      set_weights<I>(team, shape, group.rank0, 1.0, of_team);
      w = of_team;
    }
    sort_group<I, L>(team, x, value_at, group);
    const Coefficients<C> c(shape, w);

    double* h = nullptr;
    if constexpr (op == Op::backward) h = h_of_warps[warp] + which * (room + 1);
    weigh_for<op>(call, team, c, extent.begin, g, h, group);

    if constexpr (op == Op::max_at_k) {
      if (team.thread == 0 && is_group && !is_large) {
        store_element(call.out, batch.dtype, g * call.stride, group.n > 0 ? group.x[0] : not_a_number<V>());
      }
    } else {
      __syncwarp();  // all have read their samples
      put_results(group, shape.k > 0, size, own);
      __syncwarp();
      if (one_piece) {
        store_chunk(values, call.out, batch.dtype, begin, static_cast<int>(end - begin), lane, kWarp);
      } else {
        for (uint32_t i = team.thread; i < size; i += L) store_element(call.out, batch.dtype, extent.begin + i, own[i]);
      }
    }
    __syncwarp();  // before the next tile
  }
}

}  // namespace pkpo::cuda
