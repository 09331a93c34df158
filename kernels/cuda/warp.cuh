// Groups that share a warp, from shared memory to results: a team of threads for each, I samples a thread.
//
// Float32 is sorted by short keys, and again with all bits where that is not enough.
#pragma once

#include "cuda/group.cuh"
#include "cuda/rows.cuh"

namespace pkpo::cuda {

constexpr int kSmallBlock = 128;
// Where a thread has 32 samples a warp has much to keep in shared memory: smaller blocks, as many warps.
template <int I>
constexpr int small_threads = I == 32 ? kSmallBlock / 2 : kSmallBlock;

#if defined(__CUDA_ARCH__)
constexpr int architecture = __CUDA_ARCH__;
#else
constexpr int architecture = 900;
#endif

// So many blocks a multiprocessor shall hold at least, the most that leave every kernel its registers: of 65,536, 64 a
// thread for 4 float32 samples, 64 to 80 for 16 that are plain and usual, 72 for 8, 96 to 168 for others. 9.0 and 10.0
// have the shared memory for eight blocks, 8.0 for six.
template <class V, int I, int L, Op op, bool usual>
constexpr int small_blocks() {
  if (op == Op::backward) return 4;
  if (sizeof(V) == 8) return 5;
  if (I == 32) return architecture == 900 ? 8 : 6;
  if (I == 16 && 2 * L > kWarp) return usual ? 5 : 4;
  if (I == 16 && !usual) return L == 1 || L == 16 || architecture == 860 || architecture == 890 ? 4 : 5;
  if (I == 16) return architecture >= 1200 ? 5 : architecture < 900 ? 6 : L < 8 ? 8 : 7;
  return I == 4 ? 8 : 7;
}

// A team's group: samples x[i], which have the numbers of number_of() from `first` on, to ranks. values_at(samples,
// values) gives NaN where there is no sample. Says whether it is done: not where short keys are not enough and the
// groups are to be plain.
template <Groups groups, int I, int L, class V, class ValuesAt>
__device__ inline bool sort_group(const Team<L>& team, const V (&x)[I], uint32_t first, bool is_full, uint32_t size,
                                  ValuesAt values_at, Sorted<I, V>& group) {
  using E = Entries<V>;
  V before = 0;
  bool rises = false, sorted = false;
  if constexpr (sizeof(V) == 4) {
    sorted =
        sort_by_short_keys(team, x, first, is_full, size, values_at, group.x, group.sample, before, group.top, rises);
    if (groups != Groups::any && !sorted) return false;
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
    sort_in_warp(team, e, team.thread);
#pragma unroll
    for (int i = 0; i < I; ++i) {
      group.sample[i] = E::sample(e[i]);
      group.x[i] = E::value(e[i]);
    }
    before = team.previous(group.x[I - 1]);
    group.top = top_of(team, group.x, is_full, size);
    if constexpr (sizeof(V) == 8) rises = is_rising(team, group.x, before, group.top);
  }
  look_at_neighbours<groups>(team, is_full, size, before, rises, group);
  return true;
}

// A team's group, of `size` samples from `origin` on, and whether there is one; its samples' numbers begin at `first`.
// is_full: every thread of the warp has its samples.
struct TeamGroup {
  int64_t origin;
  uint32_t size, first;
  bool is_group, is_full;
};

// What `call` asks of a warp's groups, whose samples stand in shared memory, and become results there: all of the
// warp's from `values` on, a sample of the team with number j at own[j]. `spare` has room for all ranks of the team, as
// has `h`, for one more, with Op::backward. number() is the group's; weights_for(n, rank0, shape) gives the team's
// shape and its weights.
//
// Says whether it is done: where the groups are to be plain, one that is not, or is not in order by short keys, leaves
// all as it was.
template <Op op, int I, class C, Groups groups = Groups::any, class V, int L, class Number, class WeightsFor>
__device__ inline bool weigh_teams(const Call& call, const Team<L>& team, const TeamGroup& its, V* values, V* own,
                                   V* spare, double* h, Number number, WeightsFor weights_for) {
  // Where all is full, from `values`, though own is the same: one code for both spills (sm_80).
  const auto values_at = [&](const uint32_t (&sample)[I], V(&value)[I]) {
    if (its.is_full) {
#pragma unroll
      for (int i = 0; i < I; ++i) value[i] = values[sample[i]];
    } else {
#pragma unroll
      for (int i = 0; i < I; ++i) value[i] = sample[i] < its.size ? own[sample[i]] : not_a_number<V>();
    }
  };
  V x[I];
  get_samples(team, its.is_full, values + its.first, own, its.size, x);
  Sorted<I, V> group;
  group.rank0 = computed_here(team.thread * I);
  if (!sort_group<groups>(team, x, its.first, its.is_full, its.size, values_at, group)) return false;
  if (groups != Groups::any && team.any(is_out_of_range(team, group))) return false;
  // Two in a register while others are scarce.
  uint32_t pairs[I / 2];
  if constexpr (I == 32) {
#pragma unroll
    for (int i = 0; i < I / 2; ++i) {
      pairs[i] = computed_here(group.sample[2 * i] | group.sample[2 * i + 1] << 16);
    }
  }
  Shape shape;
  const C* w = weights_for(group.n, group.rank0, shape);
  const Coefficients<C> c(shape, w);
  weigh_for<op, groups>(call, team, c, its.origin, op == Op::backward ? number() : 0, h, spare, group);
  if constexpr (I == 32) {
#pragma unroll
    for (int i = 0; i < I; ++i) group.sample[i] = i % 2 ? pairs[i / 2] >> 16 : pairs[i / 2] & 0xffffu;
  }
  if constexpr (op == Op::max_at_k) {
    if (team.thread == 0 && its.is_group) {
      store_element(call.out, call.batch.dtype, number() * call.stride, group.n > 0 ? group.x[0] : not_a_number<V>());
    }
  } else {
    __syncwarp();  // all have read their samples
    const bool has_answer = shape.k > 0;
    if (its.is_full && group.n == its.size && has_answer) {  // own is the same, but for what its address costs
#pragma unroll
      for (int i = 0; i < I; ++i) values[group.sample[i]] = group.x[i];
    } else {
      put_results(team, group, has_answer, its.is_full ? kWarp * I : its.size, own);
    }
  }
  return true;
}

}  // namespace pkpo::cuda
