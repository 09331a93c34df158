// From sorted values to results: gaps, times coefficients, summed up from below and down from above.
//
// float32 is summed in float32 within eight ranks and in float64 across them, so that a result has passed through about
// ten roundings, whatever n; float64 throughout in float64.
#pragma once

#include "cuda/coefficients.cuh"

namespace pkpo::cuda {

// Sums over the ranks before and after those of the team.
struct Beyond {
  double below = 0, above = 0;
};

// The terms of one thread: coefficients times gaps, x sorted, `x_before` the value one rank below its first; what lies
// below the lowest rank and above the top one has the value of that rank.
template <int I, class V>
__device__ inline Trees<I, V, Add, double> terms_of(V (&coefficient)[I], const V (&x)[I], V x_before) {
#pragma unroll
  for (int i = 0; i < I; ++i) coefficient[i] *= x[i] - (i ? x[i - 1] : x_before);
  return Trees<I, V, Add, double>(coefficient);
}

// y by rank, of finite values whose differences are finite too. x_top is x[n-1]. `only_up`: of loo-1 with k >= 2.
template <bool only_up = false, int I, class V, class Team>
__device__ inline void scan(const Team& team, const Coefficients<V>& c, const V (&x)[I], V x_top, uint32_t rank0,
                            V x_before, const Beyond& beyond, V (&y)[I]) {
  if (only_up || c.shape.has_up()) {
    V coefficient[I];
    c.up(team, rank0, coefficient);
    const Trees<I, V, Add, double> terms = terms_of(coefficient, x, x_before);
    const double below = team.parts(terms.all(), beyond.below, 0.0, 0.0, Add()).before;
#pragma unroll
    for (int i = 0; i < I; ++i) y[i] = terms.up_to(i, below);
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) y[i] = 0;
  }
  if constexpr (only_up) return;
  // Forms are the same for all groups of a call, has_down depends on a group's k: a warp may not part company here.
  if (team.any(c.shape.has_down())) {
    V coefficient[I];
    c.down(team, rank0, coefficient);
    const Trees<I, V, Add, double> terms = terms_of(coefficient, x, x_before);
    const double above = team.parts(terms.all(), 0.0, beyond.above, 0.0, Add()).after;
#pragma unroll
    for (int i = 0; i < I; ++i) y[i] = y[i] - terms.behind(i, above);
  }
  if (c.shape.has_top()) {
    const V top = c.top * x_top;
#pragma unroll
    for (int i = 0; i < I; ++i) y[i] = y[i] + top;
  }
}

// Equal rewards get the result of the first of them, to the bit: sums along the tree differ in their rounding from rank
// to rank, even where nothing is added. `tied`: a bit for each rank that has the value of the rank before.
template <int I, class V, class Team>
__device__ inline void share_result(const Team& team, uint32_t tied, V (&y)[I]) {
  if (!team.any(tied != 0)) return;
#pragma unroll
  for (int i = 1; i < I; ++i) {
    if (tied >> i & 1) y[i] = y[i - 1];
  }
  const bool has_first = tied != 0xffffffffu >> (32 - I);
  const V before = team.nearest_before(y[I - 1], has_first);
  bool still = true;
#pragma unroll
  for (int i = 0; i < I; ++i) {
    still = still && (tied >> i & 1);
    if (still) y[i] = before;
  }
}

// One of the two parts that values out of range are split into: x = infinite M + finite, for M without bound. The
// finite part is scanned at a quarter of its size.
template <class V>
__device__ inline V finite_part(V x, V scale) {
  return fabs(x) == infinity<V>() ? V(0) : x * scale;
}
template <class V>
__device__ inline V infinite_part(V x) {
  return fabs(x) != infinity<V>() ? V(0) : x > 0 ? V(1) : V(-1);
}

// An infinite part not larger than this is what rounding left of 0. Without a +M at the top a result has one term of M
// at most, so that nothing cancels. `top`: the infinite part of the top value.
template <class V>
__device__ inline V negligible(const Shape& shape, V top) {
  if (!shape.has_down() || !(top > 0)) return 0;
  const V largest = shape.form == Form::max_at_k ? V(1) : static_cast<V>(shape.k) / static_cast<V>(shape.n);
  return (sizeof(V) == 8 ? V(1e-12) : V(4e-7f)) * largest;
}

// What a team's terms sum up to, the coefficients upwards and downwards: of one of the two parts that its values have
// if the group is out of range, else of the finite one, which is all of them.
struct Sums {
  double up, down;
};
template <int I, class V, class Team>
__device__ inline Sums sums_of(const Team& team, const Coefficients<V>& c, const V (&x)[I], uint32_t rank0, V x_before,
                               bool out_of_range, bool infinite) {
  const V scale = out_of_range ? V(0.25) : V(1);
  const auto part_of = [&](V value) { return infinite ? infinite_part(value) : finite_part(value, scale); };
  V values[I];
#pragma unroll
  for (int i = 0; i < I; ++i) values[i] = part_of(x[i]);
  const V before = part_of(x_before);
  const auto sum = [&](V(&coefficient)[I]) {
    const auto terms = terms_of(coefficient, values, before);
    return team.parts(terms.all(), 0.0, Add()).all;
  };
  Sums sums{0, 0};
  V coefficient[I];
  if (c.shape.has_up()) {
    c.up(team, rank0, coefficient);
    sums.up = sum(coefficient);
  }
  if (c.shape.has_down()) {
    c.down(team, rank0, coefficient);
    sums.down = sum(coefficient);
  }
  return sums;
}

// scan() of any values, which are overwritten: infinite rewards act as the limit of ever larger finite ones. `beyond`
// belongs to the finite part, `beyond_infinite` to the infinite one. `out_of_range`: of this group; x_top and x_before
// as they are. `spare`: shared memory for as many values as the team has ranks.
template <int I, class V, class Team>
__device__ inline void scan_any(const Team& team, const Coefficients<V>& c, V (&x)[I], V x_top, uint32_t rank0,
                                V x_before, const Beyond& beyond, const Beyond& beyond_infinite, bool out_of_range,
                                V* spare, V (&y)[I]) {
  const bool in_parts = team.any(out_of_range);
  const V scale = out_of_range ? V(0.25) : V(1);
  Beyond outside = beyond;
  using Bits = std::conditional_t<(I < 31), uint32_t, uint64_t>;
  Bits high = 0, low = 0;  // which values are infinite, a bit each; x_before and x_top behind them
  if (in_parts) {
#pragma unroll
    for (int i = 0; i < I + 2; ++i) {
      V& value = i < I ? x[i < I ? i : 0] : i == I ? x_before : x_top;
      if (value == infinity<V>()) high |= Bits{1} << i;
      if (value == -infinity<V>()) low |= Bits{1} << i;
      value = finite_part(value, scale);
    }
  }
  if (in_parts) team.sync();  // whatever was in `spare` has been read
  V* finite = spare + computed_here(team.thread);
  // One copy of the code for both parts, for the registers' sake.
#pragma unroll 1
  for (uint32_t part = 0, last = computed_here(in_parts ? 1 : 0);; ++part) {
    scan(team, c, x, x_top, computed_here(rank0), x_before, outside, y);
    if (part == last) break;
    const Bits plus = high >> part, minus = low >> part;  // by 0, so that this is not done ahead of the loop
    const auto sign = [&](int i) { return plus >> i & 1 ? V(1) : minus >> i & 1 ? V(-1) : V(0); };
#pragma unroll
    for (int i = 0; i < I; ++i) {
      finite[i * team.threads()] = y[i];
      x[i] = sign(i);
    }
    x_before = sign(I);
    x_top = sign(I + 1);
    outside = beyond_infinite;
  }
  if (!in_parts) return;
  const V limit = negligible(c.shape, x_top);
#pragma unroll
  for (int i = 0; i < I; ++i) {
    if (fabs(y[i]) > limit) {
      y[i] = y[i] < 0 ? -infinity<V>() : infinity<V>();
    } else {
      y[i] = finite[i * team.threads()] * (out_of_range ? V(4) : V(1));
    }
  }
}

}  // namespace pkpo::cuda
