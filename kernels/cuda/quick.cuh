// Batches of groups of up to 32 samples, so few that every sample has a thread: the shortest time from rewards to
// results, where the other kernels take the fewest instructions. A lane counts the samples of its group that come
// before its own, takes the place of one rank for the scan, and asks the lane of its sample's rank for the result.
//
// Weights are formed while the rewards come. The longest chain from then on: L - 1 shuffles that do not wait for each
// other, a write and a read of shared memory, log2(L) shuffles up the tree, two more for the result.
#pragma once

#include "cuda/warp.cuh"

namespace pkpo::cuda {

constexpr int kQuickBlock = 128;

// Along the tree of team.cuh: eight ranks as one thread of another kernel would do them, so many lanes here.
template <int L>
constexpr int kInner = L < 8 ? L : 8;
template <int L, class Op>
using OuterTree = WarpTree<L / kInner<L>, double, Op, kInner<L>>;

// The weight of a lane's rank, where put_weights() would put it.
template <int L>
__device__ inline void set_weight(const Team<L>& team, const Shape& shape, float* w) {
  constexpr int inner = kInner<L>;
  const int lane = Team<L>::lane(), which = team.thread % inner;
  const uint32_t rank = static_cast<uint32_t>(team.thread);
  const double own = shape.factor(rank, shape.step(rank), shape.share());
  double factor[inner];
#pragma unroll
  for (int i = 0; i < inner; ++i) factor[i] = broadcast_in_warp(own, lane - which + i);
  const Tree<inner, double, Multiply> tree(factor);
  const double after = OuterTree<L, Multiply>(tree.all()).down(1.0, 1.0, team.thread / inner).after;
  const float weight[1] = {shape.kept<float>(rank, tree.last(after, inner - which), shape.scale())};
  put_weights(team, weight, w);
}

// scan() of a lane's rank. `term` is the coefficient times the gap; the sum of the terms up to it, or behind it.
template <int L>
__device__ inline float sum_up_to(const Team<L>& team, float term) {
  constexpr int inner = kInner<L>;
  const int which = team.thread % inner;
  const WarpTree<inner, float, Add> tree(term);
  const float before = static_cast<float>(OuterTree<L, Add>(tree.all).down(0.0, 0.0, team.thread / inner).before);
  const float next = __shfl_down_sync(kAllLanes, tree.down(before, 0.0f, which).before, 1);
  return which == inner - 1 ? before + tree.all : next;
}
template <int L>
__device__ inline float sum_behind(const Team<L>& team, float term) {
  constexpr int inner = kInner<L>;
  const WarpTree<inner, float, Add> tree(term);
  const float after = static_cast<float>(OuterTree<L, Add>(tree.all).down(0.0, 0.0, team.thread / inner).after);
  return tree.down(0.0f, after, team.thread % inner).after;
}

// How many values of the group come before the lane's own, equal ones by their lanes.
template <int L>
__device__ inline uint32_t rank_of(const Team<L>& team, float x) {
  uint32_t rank = 0;
#pragma unroll
  for (int bit = 1; bit < L; bit *= 2) {
    const bool is_before = team.thread & bit;  // lanes that differ in this bit and lower ones
#pragma unroll
    for (int other = bit; other < 2 * bit; ++other) {
      const float its = exchange(x, other);
      rank += its < x || (its == x && is_before);
    }
  }
  return rank;
}

// Groups of up to L samples. The grid has a lane for each sample.
template <int L, bool usual>
__global__ void __launch_bounds__(kQuickBlock, 5) quick_groups(Call call) {
  if constexpr (usual) say_usual(call);
  constexpr int warps = kQuickBlock / kWarp, groups = kWarp / L;  // of a warp
  constexpr int I = L < 8 ? 4 : 8;                                // a thread, of groups that are not plain
  __shared__ __align__(16) float values_of_warps[warps][kWarp * I + kPlaces], weights_of_warps[warps][kWarp * I];
  const Batch& batch = call.batch;
  const Team<L> team;
  const int lane = Team<L>::lane(), warp = static_cast<int>(threadIdx.x) / kWarp, which = lane / L;
  const int64_t first = (int64_t{blockIdx.x} * warps + warp) * groups, group = first + which;
  const uint32_t width = static_cast<uint32_t>(batch.width), rank = static_cast<uint32_t>(team.thread);
  const bool is_group = group < batch.count, is_sample = is_group && rank < width;
  const int64_t at = group * width + rank;
  const float x = is_sample ? load_element<float>(batch.rewards, batch.dtype, at) : infinity<float>();

  float *values = values_of_warps[warp], *weights = weights_of_warps[warp], *of_team = weights + which * L * 4;
  const Shape shape{width, clamp_k(is_group ? k_of(batch, group) : 1, width, call.form), call.form};
  set_weight(team, shape, of_team);
  const Coefficients<float> c(shape, of_team);

  float y;
  if (!team.any(is_sample && !is_in_range(x))) {
    const uint32_t its_rank = rank_of(team, x);
    float* sorted = values + which * L;
    sorted[its_rank] = x;
    __syncwarp();
    const float top = sorted[width - 1], own = fminf(sorted[rank], top),
                before = fminf(sorted[rank > 0 ? rank - 1 : 0], top), gap = own - before;
    // Equal rewards get the result of the first of them.
    const uint32_t is_first = __ballot_sync(kAllLanes, rank == 0 || own != before);
    y = 0;
    float coefficient[1];
    if (c.shape.has_up()) {
      c.up(team, rank, coefficient);
      y = sum_up_to(team, coefficient[0] * gap);
    }
    if (team.any(c.shape.has_down())) {
      c.down(team, rank, coefficient);
      y = y - sum_behind(team, coefficient[0] * gap);
    }
    if (c.shape.has_top()) y = y + c.top * top;
    const uint32_t up_to_its = is_first & (0xffffffffu >> (kWarp - 1 - which * L - its_rank));
    y = __shfl_sync(kAllLanes, y, kWarp - 1 - __clz(static_cast<int>(up_to_its)));
    if (shape.k == 0) y = 0;
  } else {
    if (is_sample) values[which * width + rank] = x;
    __syncwarp();
    const Team<L / kInner<L>> others;
    const int its = lane / others.threads();
    constexpr int room = I * others.threads();
    const auto number = [&] { return first + its; };
    const auto weights_for = [&](uint32_t n, uint32_t rank0, Shape& its_shape) -> const float* {
      its_shape = shape_of(call, number(), n);
      set_weights<I>(others, its_shape, rank0, 1.0, weights + its * room);
      return weights + its * room;
    };
    const bool is_one = its < groups && number() < batch.count;
    const uint32_t before = is_one ? its * width : 0;
    weigh_teams<Op::transform, I, float>(
        call, others, TeamGroup{first * width + before, is_one ? width : 0, 0, is_one, false}, values, values + before,
        values + computed_here(its * room), nullptr, number, weights_for);
    __syncwarp();
    y = is_sample ? values[which * width + rank] : 0;
  }
  if (is_sample) store_element(call.out, batch.dtype, at, y);
}

}  // namespace pkpo::cuda
