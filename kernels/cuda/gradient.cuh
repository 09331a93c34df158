// From incoming gradients to the rewards' gradients (kernels/README.md). Sums of incoming gradients must not depend on
// the order in which equal rewards come to stand: every term is cut at a place below which so many bits are left that
// sums of the pieces are exact, and what is below it once more (Demmel and Nguyen, Fast reproducible floating-point
// summation, 2013). Of n terms, what the second cut drops is at most 2^-98 n^3 of the largest.
#pragma once

#include "cuda/coefficients.cuh"

namespace pkpo::cuda {

struct Cuts {
  double first, second;  // (term + cut) - cut is the piece above the place; 0 for no cut
};

// A magnitude as an integer in its order; NaN counts as larger than infinity.
__device__ inline uint64_t magnitude(double value) { return static_cast<uint64_t>(__double_as_longlong(fabs(value))); }

// Rounded down; 0 for a subnormal number, whose sums are exact anyway.
__device__ inline double power_of_two(double x) {
  return __longlong_as_double(__double_as_longlong(x) & 0x7ff0000000000000ll);
}

// For n terms of at most this magnitude. Terms so large that a cut would overflow, or not finite, are summed as they
// are.
__device__ inline Cuts cuts_for(uint64_t largest, uint32_t n) {
  const double terms = n, first = power_of_two(__longlong_as_double(static_cast<long long>(largest)) * terms) * 4;
  if (!(first < 0x1p1020)) return {0, 0};
  return {1.5 * first, 1.5 * (first * 0x1p-52 * (power_of_two(terms) * 8))};
}

__device__ inline Pair cut(double term, const Cuts& cuts) {
  const double high = (term + cuts.first) - cuts.first, low = ((term - high) + cuts.second) - cuts.second;
  return {high, low == low ? low : 0.0};  // inf - inf where terms are infinite
}

__device__ inline double value(const Pair& sum) { return sum.high + sum.low; }

// Sums over the ranks before and after those of the team.
struct BeyondGradient {
  Pair below{0, 0}, above{0, 0};
};

// h[q] = up[q] sum_{p >= q} gy[p] - down[q] sum_{p < q} gy[p]; gives sum(gy) of the team and what is beyond. Exact sums
// need no tree.
template <int I, class Team>
__device__ inline double scan_gradient(const Team& team, const Coefficients<double>& c, uint32_t rank0,
                                       const double (&gy)[I], const Cuts& cuts, const BeyondGradient& beyond,
                                       double (&h)[I]) {
  const Add add;
  Pair own{0, 0};
#pragma unroll
  for (int i = 0; i < I; ++i) own = add(own, cut(gy[i], cuts));
  const Parts<Pair> parts = team.parts(own, beyond.below, beyond.above, Pair{0, 0}, add);
#pragma unroll
  for (int i = 0; i < I; ++i) h[i] = 0;
  // Where nothing counts nothing comes, even of an infinite sum.
  if (c.shape.has_up()) {
    double up[I];
    c.up(team, computed_here(rank0), up);
    Pair above = parts.after;
#pragma unroll
    for (int i = I - 1; i >= 0; --i) {
      above = add(above, cut(gy[i], cuts));
      if (up[i] != 0) h[i] = up[i] * value(above);
    }
  }
  if (c.shape.has_down()) {
    double down[I];
    c.down(team, computed_here(rank0), down);
    Pair below = parts.before;
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if (down[i] != 0) h[i] -= down[i] * value(below);
      below = add(below, cut(gy[i], cuts));
    }
  }
  if (rank0 == 0) h[0] = 0;
  return value(add(add(beyond.below, parts.all), beyond.above));
}

// What each of `count` equal rewards gets of their gaps' difference.
__device__ inline double share_of(double difference, uint32_t count) {
  return count > 1 ? difference / static_cast<double>(count) : difference;
}

// The first and the last rank of equal value, for every rank of the team. `tied`: a bit for each of the thread's ranks
// that has the value of the rank before.
template <int I, class Team>
__device__ inline void find_ties(const Team& team, uint32_t tied, uint32_t rank0, uint32_t n, uint32_t (&first)[I],
                                 uint32_t (&last)[I]) {
  uint32_t begin[I], end[I];
#pragma unroll
  for (int i = 0; i < I; ++i) {
    const uint32_t rank = rank0 + i;
    const bool begins = rank >= n || !(tied >> i & 1);
    begin[i] = begins ? rank : 0;
    end[i] = begins && rank > 0 ? rank - 1 : 0xffffffffu;  // of the run before
  }
  const Tree<I, uint32_t, Larger> begins(begin);
  const Tree<I, uint32_t, Smaller> ends(end);
  const uint32_t before = team.parts(begins.all(), 0u, Larger()).before;
  const uint32_t after = team.parts(ends.all(), 0xffffffffu, Smaller()).after;
#pragma unroll
  for (int i = 0; i < I; ++i) {
    first[i] = begins.first(before, i + 1);
    const uint32_t found = ends.last(after, I - 1 - i);
    last[i] = found < n ? found : n - 1;
  }
}

}  // namespace pkpo::cuda
