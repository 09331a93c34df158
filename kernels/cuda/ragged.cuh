// Groups that differ in size, up to 32 I samples each, sharing warps. A warp takes up to 32 of them and does as many at
// once as it has room for, each with the fewest threads, a power of two, that have room for the largest of these.
//
// Their weights differ, but for the factor of the top rank they are products of ratios that depend on k and the rank
// alone: where all have one k, a block forms those ratios once.
#pragma once

#include "cuda/warp.cuh"

namespace pkpo::cuda {

// The ratios of ranks, so that threads that read I in a row start in different banks.
template <int I>
struct Ratios {
  static constexpr int kRoom = kWarp * (I + 2);
  __device__ static constexpr uint32_t place(uint32_t rank) { return rank + rank / I * 2; }
};

// As small_blocks(): 80 to 168 registers a thread.
template <class V, int I, Op op, bool usual>
constexpr int ragged_blocks() {
  constexpr bool is_longest = op == Op::transform && !usual;
  if (op == Op::backward) return architecture < 1000 ? 4 : 3;
  if (sizeof(V) == 8) return 4;
  if (I == 16) return is_longest ? 3 : 4;
  return is_longest ? 4 : usual ? 6 : 5;
}

// Groups of more than kWarp * I samples are left alone: another launch does them. `counter`: what is to be 0 then, or
// null.
template <class V, int I, Op op, bool usual>
__global__ void __launch_bounds__(kSmallBlock, ragged_blocks<V, I, op, usual>())
    ragged_groups(Call call, uint32_t* counter) {
  if (counter && blockIdx.x == 0 && threadIdx.x == 0) *counter = 0;
  if constexpr (usual) say_usual(call);
  using C = std::conditional_t<op == Op::backward, double, V>;
  constexpr int room = kWarp * I, warps = kSmallBlock / kWarp;
  __shared__ __align__(16) V values_of_warps[warps][room + kPlaces];
  __shared__ __align__(16) C weights_of_warps[warps][room];
  __shared__ __align__(16) double ratios[Ratios<I>::kRoom];
  __shared__ double h_of_warps[op == Op::backward ? warps : 1][op == Op::backward ? room + kWarp : 1];
  // A warp's groups, which wait there until it comes to them.
  __shared__ int64_t begins_of_warps[warps][kWarp];
  __shared__ uint32_t sizes_of_warps[warps][kWarp];
  __shared__ struct Turn {
    int64_t base, begin;
    uint32_t pending;
    int from, groups, place, count;
    bool in_one_row;
  } turn_of_warps[warps];
  // What all teams' weights are for that stand there; n is no group's where they differ.
  __shared__ struct Kept {
    uint32_t n;
    int threads;
  } kept_of_warps[warps];
  const Batch& batch = call.batch;
  const int lane = Team<kAny>::lane(), warp = static_cast<int>(threadIdx.x) / kWarp;
  int64_t* begins = begins_of_warps[warp];
  uint32_t* sizes = sizes_of_warps[warp];
  V* values = values_of_warps[warp];
  Turn& turn = turn_of_warps[warp];
  Kept& kept = kept_of_warps[warp];
  kept = {0xffffffffu, 0};

  const bool same_k = has_one_k(batch);
  __shared__ uint32_t k_of_ratios;
  if (same_k) {
    const Shape shape{0xffffffffu, clamp_k(k_of(batch, 0), 0xffffffffu, call.form), call.form};
    k_of_ratios = shape.k;
    for (uint32_t rank = threadIdx.x; rank < room; rank += kSmallBlock) {
      ratios[Ratios<I>::place(rank)] = shape.step(rank);
    }
  }
  // So many groups at a time, for every warp to get some.
  __shared__ int each;
  const int64_t evenly = (batch.count - 1) / (int64_t{gridDim.x} * warps) + 1;
  each = evenly < kWarp ? static_cast<int>(evenly) : kWarp;
  __syncthreads();  // every thread wrote the same

  for (int64_t base = (int64_t{blockIdx.x} * warps + warp) * each; base < batch.count;
       base += int64_t{gridDim.x} * warps * each) {
    const bool is_one = lane < each && base + lane < batch.count;
    const Extent extent = extent_of(batch, is_one ? base + lane : base);
    begins[lane] = extent.begin;
    sizes[lane] = is_one ? extent.size : 0;
    uint32_t pending = __ballot_sync(kAllLanes, is_one && extent.size <= room);
    __syncwarp();  // others read what each has written
    while (pending != 0) {
      // Those from the first one on that lie one after another, and as many of them as fit.
      const int from = __ffs(static_cast<int>(pending)) - 1;
      const uint32_t there = pending >> from;
      const int in_a_row = there == 0xffffffffu ? kWarp : __ffs(static_cast<int>(~there)) - 1;
      const bool is_next = lane >= from && lane < from + in_a_row;
      int log_threads = 0;
      while (true) {
        const bool is_too_large = sizes[lane] > static_cast<uint32_t>(I) << log_threads;
        if (!__any_sync(kAllLanes, is_next && lane < from + (kWarp >> log_threads) && is_too_large)) break;
        ++log_threads;
      }
      const Team<kAny> team(1 << log_threads);
      const int teams = kWarp >> log_threads, groups = in_a_row < teams ? in_a_row : teams, which = lane >> log_threads;
      const bool is_group = which < groups;
      const int own_group = from + (is_group ? which : groups - 1);
      pending &= ~((groups == kWarp ? 0xffffffffu : (1u << groups) - 1) << from);
      const int64_t begin = begins[from], end = begins[from + groups - 1] + sizes[from + groups - 1];
      const int64_t origin = begins[own_group];
      const uint32_t size = is_group ? sizes[own_group] : 0;
      // Not so where offsets fall.
      const bool in_one_row =
          __all_sync(kAllLanes, origin >= begin && origin + size <= end &&
                                    end - begin <= static_cast<int64_t>(groups) * (I << log_threads));
      const int place = in_one_row ? place_of(batch.rewards, batch.dtype, begin) : 0;
      const int count = static_cast<int>(end - begin);
      const uint32_t rank_room = computed_here(I << log_threads);
      // Numbers of samples count from the first group's then, as in small_groups.
      const bool is_full = __all_sync(kAllLanes, is_group && in_one_row && place == 0 && size == rank_room);
      V* own = values + (is_full      ? 0
                         : in_one_row ? place + static_cast<int>(origin - begin)
                                      : static_cast<int>(which * rank_room));
      if (in_one_row) {
        load_row<kWarp, I>(batch.rewards, batch.dtype, begin, place, count, values, lane);
      } else {
#pragma unroll 1
        for (uint32_t i = team.thread; i < size; i += team.threads()) {
          own[i] = load_element<V>(batch.rewards, batch.dtype, origin + i);
        }
      }
      turn = {base, begin, pending, from, groups, place, count, in_one_row};
      __syncwarp();

      const auto number = [&] { return turn.base + turn.from + (which < turn.groups ? which : turn.groups - 1); };
      const auto weights_for = [&](uint32_t n, uint32_t rank0, Shape& shape) -> const C* {
        shape = Shape{n, clamp_k(same_k ? k_of_ratios : k_of(batch, number()), n, call.form), call.form};
        C* of_team = weights_of_warps[warp] + computed_here(which * rank_room);
        if (kept.threads == team.threads() && !team.any(n != kept.n && is_group)) return of_team;
        if (same_k && !team.any(size > 0 && shape.k != k_of_ratios)) {
          const double* steps = ratios + Ratios<I>::place(rank0);
          set_weights<I>(team, shape, rank0, 1.0, [&](int i) { return steps[i]; }, of_team);
        } else {
          set_weights_by_pieces<I>(team, shape, rank0, 1.0, of_team);
        }
        const uint32_t first_n = __shfl_sync(kAllLanes, n, 0);
        const bool alike = same_k && !team.any(n != first_n || !is_group);
        __syncwarp();  // all have read what is kept
        kept = {alike ? first_n : 0xffffffffu, team.threads()};
        __syncwarp();
        return of_team;
      };
      double* h = nullptr;
      if constexpr (op == Op::backward) h = h_of_warps[warp] + which * (rank_room + 1);
      weigh_teams<op, I, C>(
          call, team, TeamGroup{is_full ? begin : origin, size, is_full ? which * rank_room : 0, is_group, is_full},
          values, own, values + which * rank_room, h, number, weights_for);
      if constexpr (op != Op::max_at_k) {
        __syncwarp();
        if (turn.in_one_row) {
          store_row<kWarp, I>(values, call.out, batch.dtype, turn.begin, turn.place, turn.count, lane);
        } else {
          const int64_t its = begins[number() - turn.base];
#pragma unroll 1
          for (uint32_t i = team.thread; i < size; i += team.threads()) {
            store_element(call.out, batch.dtype, its + i, own[i]);
          }
        }
      }
      base = turn.base;
      pending = turn.pending;
      __syncwarp();  // before the next ones
    }
  }
}

}  // namespace pkpo::cuda
