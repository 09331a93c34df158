// One group, sorted and held by a team: from its entries to results. What the kernels for small, larger and very large
// groups have in common.
#pragma once

#include "cuda/gradient.cuh"
#include "cuda/scan.cuh"
#include "cuda/sort.cuh"

namespace pkpo::cuda {

// What is known of the groups that a kernel does: nothing; that none of their samples is absent or out of range; and
// that they are weighed with loo-1 and k >= 2 beside that.
enum class Groups { any, plain, usual };

// A team's share of a sorted group: rank rank0 + i has value x[i] and belongs to sample[i]. Absent samples stand behind
// the n that are present and have the value of the top one (0 where there is none): a gap of zero, which counts
// nothing.
template <int I, class V>
struct Sorted {
  V x[I];
  V before;  // the value one rank below x[0]; at the lowest rank x[0]
  V top;
  uint32_t sample[I];
  uint32_t rank0, n;
  uint32_t tied;  // which ranks have the value of the rank before, a bit each
};

// The rest of a group that a team holds whole, of `size` samples, sorted, its values NaN where absent. `before` is of
// the thread before, group.top what top_of() gives; `rises`: what is_rising() says, or false.
template <Groups groups, int I, class V, class Team>
__device__ inline void look_at_neighbours(const Team& team, bool is_full, uint32_t size, V before, bool rises,
                                          Sorted<I, V>& group) {
  group.n = size;
  group.tied = 0;
  bool all_are_there = is_full;
  if (!rises) {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if ((i > 0 || team.thread > 0) && group.x[i] == (i ? group.x[i - 1] : before)) group.tied |= 1u << i;
    }
    if (groups == Groups::any && team.any(!is_in_range(group.top))) {
      uint32_t present = 0;
      V top = 0;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        const bool is_absent = group.x[i] != group.x[i];
        present += !is_absent;
        top = is_absent ? top : group.x[i];
      }
      group.n = team.parts(present, 0u, Add()).all;
      group.top = team.broadcast(top, group.n > 0 ? static_cast<int>((group.n - 1) / I) : 0);
      all_are_there = false;
    }
  }
  if (!all_are_there) {  // of NaN and another value fmin gives the other
    before = fmin(before, group.top);
#pragma unroll
    for (int i = 0; i < I; ++i) group.x[i] = fmin(group.x[i], group.top);
  }
  group.before = team.thread == 0 ? group.x[0] : before;
}

// The first of the ranks begin .. end - 1 whose key is not below `key`, else `end`. For all lanes of a warp, which look
// at as many ranks at once.
template <class Keys, class Key>
__device__ inline uint32_t first_not_below(const Keys& keys, uint32_t begin, uint32_t end, Key key) {
  while (begin < end) {
    const uint64_t step = (end - begin - 1) / kWarp + 1, at = begin + step * (threadIdx.x % kWarp + 1) - 1;
    const uint32_t below = __popc(__ballot_sync(kAllLanes, at < end && keys[at] < key));
    const uint64_t next = begin + step * below, last = next + step - 1;
    begin = next < end ? static_cast<uint32_t>(next) : end;
    end = last < end ? static_cast<uint32_t>(last) : end;
  }
  return begin;
}

// Values, and which of them are equal, of ranks whose keys these are: a team's of a group that it need not hold whole,
// `before` of the rank before. group.rank0 and n are set.
template <int I, class V>
__device__ inline void set_by_keys(const KeyOf<V> (&key)[I], KeyOf<V> before, KeyOf<V> top, Sorted<I, V>& group) {
  group.tied = 0;
#pragma unroll
  for (int i = 0; i < I; ++i) {
    const uint32_t rank = group.rank0 + i;
    if (rank > 0 && rank < group.n && key[i] == (i ? key[i > 0 ? i - 1 : 0] : before)) group.tied |= 1u << i;
    group.x[i] = value_of(key[i]);
  }
  group.before = value_of(before);
  group.top = value_of(top);
}

template <int I, class V, class Team>
__device__ inline bool is_out_of_range(const Team& team, const Sorted<I, V>& group) {
  return !is_in_range(team.broadcast(group.x[0], 0)) || !is_in_range(group.top);
}

// transform and max_at_k of a whole group, whose values are overwritten; y by rank. `spare` as for scan_any.
template <Groups groups, int I, class V, class Team>
__device__ inline void weigh(const Team& team, const Coefficients<V>& c, Sorted<I, V>& group, V* spare, V (&y)[I]) {
  if constexpr (groups != Groups::any) {
    scan<groups == Groups::usual>(team, c, group.x, group.top, group.rank0, group.before, Beyond(), y);
  } else {
    scan_any(team, c, group.x, group.top, group.rank0, group.before, Beyond(), Beyond(), is_out_of_range(team, group),
             spare, y);
  }
  share_result(team, group.tied, y);
}

// The gradient of a whole group, by rank; gy by rank, 0 where absent. `h` has room for one number more than the team
// has ranks, and is the team's alone.
template <int I, class V, class Team>
__device__ inline void weigh_gradient(const Team& team, const Coefficients<double>& c, const Sorted<I, V>& group,
                                      const double (&gy)[I], double* h, double (&gx)[I]) {
  uint64_t largest = 0;
#pragma unroll
  for (int i = 0; i < I; ++i) largest = Larger()(largest, magnitude(gy[i]));
  largest = team.parts(largest, uint64_t{0}, Larger()).all;
  double own[I];
  const double total = scan_gradient(team, c, group.rank0, gy, cuts_for(largest, group.n), BeyondGradient(), own);
#pragma unroll
  for (int i = 0; i < I; ++i) {
    if (group.rank0 + i < group.n) h[group.rank0 + i] = own[i];
  }
  if (team.thread == 0) h[group.n] = c.top != 0 ? -(c.top * total) : 0.0;
  uint32_t first[I], last[I];
  find_ties(team, group.tied, group.rank0, group.n, first, last);
  team.sync();
#pragma unroll
  for (int i = 0; i < I; ++i) {
    gx[i] = 0;
    if (group.rank0 + i >= group.n) continue;
    gx[i] = share_of(h[first[i]] - h[last[i] + 1], last[i] - first[i] + 1);
  }
}

// Incoming gradients by rank, of the samples from `begin` on; of max_at_k, whose gradient is group g's, at rank 0.
template <int I, class V>
__device__ inline void load_gradient(const Call& call, int64_t begin, int64_t g, const Sorted<I, V>& group,
                                     double (&gy)[I]) {
#pragma unroll
  for (int i = 0; i < I; ++i) {
    gy[i] = 0;
    if (group.rank0 + i >= group.n) continue;
    if (call.form != Form::max_at_k) {
      gy[i] = load_element<V>(call.grad, call.batch.dtype, begin + group.sample[i]);
    } else if (group.rank0 + i == 0) {
      gy[i] = load_element<V>(call.grad, call.batch.dtype, g);
    }
  }
}

// What `call` asks of a whole group g, whose values become results. `h` as for weigh_gradient, `spare` as for scan_any.
template <Op op, Groups groups = Groups::any, int I, class V, class C, class Team>
__device__ inline void weigh_for(const Call& call, const Team& team, const Coefficients<C>& c, int64_t begin, int64_t g,
                                 double* h, V* spare, Sorted<I, V>& group) {
  std::conditional_t<op == Op::backward, double, V> result[I];
  if constexpr (op == Op::backward) {
    double gy[I];
    load_gradient(call, begin, g, group, gy);
    weigh_gradient(team, c, group, gy, h, result);
  } else {
    weigh<groups>(team, c, group, spare, result);
  }
#pragma unroll
  for (int i = 0; i < I; ++i) {
    group.x[i] = static_cast<V>(result[i]);
    if constexpr (op == Op::backward) group.x[i] += V(0);  // no zero is negative; of sums of x none is
  }
}

// Results to their samples, whose numbers are below `limit`; 0 where a sample is absent or the group has no answer.
template <int I, class V, class Team>
__device__ inline void put_results(const Team& team, const Sorted<I, V>& group, bool has_answer, uint32_t limit,
                                   V* to) {
  if (group.n == static_cast<uint32_t>(team.threads() * I) && has_answer) {
#pragma unroll
    for (int i = 0; i < I; ++i) to[group.sample[i]] = group.x[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < I; ++i) {
    const bool counts = group.rank0 + i < group.n && has_answer;
    if (group.sample[i] < limit) to[group.sample[i]] = counts ? group.x[i] : V(0);
  }
}

// A thread's samples, which have the numbers of number_of(), from shared memory: of a team that has all of them from
// `full`, else from `own`, NaN from number `size` on.
template <int I, int L, class V>
__device__ inline void get_samples(const Team<L>& team, bool is_full, const V* full, const V* own, uint32_t size,
                                   V (&x)[I]) {
  if (is_full) {
#pragma unroll
    for (int j = 0; j < I / 4; ++j) {
      const Piece<V>* pieces = reinterpret_cast<const Piece<V>*>(full + number_of<I>(team, j));
#pragma unroll
      for (int i = 0; i < 4; ++i) x[4 * j + i] = pieces[i / Piece<V>::kItems].item[i % Piece<V>::kItems];
    }
  } else {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      const uint32_t number = number_of<I>(team, i / 4) + i % 4;
      x[i] = number < size ? own[number] : not_a_number<V>();
    }
  }
}

}  // namespace pkpo::cuda
