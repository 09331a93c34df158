// The threads that share a group: an aligned part of a warp or a whole block. Thread t holds the ranks
// I t .. I t + I - 1.
//
// All sums and products over ranks are taken along one binary tree whose leaves are the ranks, in the order of a prefix
// sum by halves: the left sibling of every node on the way down, the largest first. The tree does not depend on how
// many threads share a group, and an absent rank adds the neutral element, which changes no bit. So a group has the
// same bits whichever kernel does it.
#pragma once

#include "cuda/device.cuh"
#include "cuda/keys.cuh"

namespace pkpo::cuda {

__device__ inline int32_t exchange(int32_t value, int lanes) { return __shfl_xor_sync(kAllLanes, value, lanes); }
__device__ inline uint32_t exchange(uint32_t value, int lanes) { return __shfl_xor_sync(kAllLanes, value, lanes); }
__device__ inline float exchange(float value, int lanes) { return __shfl_xor_sync(kAllLanes, value, lanes); }
__device__ inline double exchange(double value, int lanes) { return __shfl_xor_sync(kAllLanes, value, lanes); }
__device__ inline uint64_t exchange(uint64_t value, int lanes) {
  return static_cast<uint64_t>(__shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(value), lanes));
}
__device__ inline WideEntry exchange(const WideEntry& value, int lanes) {
  return {exchange(value.key, lanes), exchange(value.sample, lanes)};
}

// A sum of terms cut in two, both parts exact (see gradient.cuh).
struct Pair {
  double high, low;
};
__device__ inline Pair exchange(const Pair& value, int lanes) {
  return {exchange(value.high, lanes), exchange(value.low, lanes)};
}

template <class T>
__device__ inline T broadcast_in_warp(const T& value, int lane) {
  if constexpr (std::is_same_v<T, Pair>) {
    return {__shfl_sync(kAllLanes, value.high, lane), __shfl_sync(kAllLanes, value.low, lane)};
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return static_cast<uint64_t>(__shfl_sync(kAllLanes, static_cast<unsigned long long>(value), lane));
  } else {
    return __shfl_sync(kAllLanes, value, lane);
  }
}

struct Add {
  template <class T>
  __device__ T operator()(const T& a, const T& b) const {
    return a + b;
  }
  __device__ Pair operator()(const Pair& a, const Pair& b) const { return {a.high + b.high, a.low + b.low}; }
};
struct Multiply {
  __device__ double operator()(double a, double b) const { return a * b; }
};
struct Larger {
  template <class T>
  __device__ T operator()(const T& a, const T& b) const {
    return a < b ? b : a;
  }
};
struct Smaller {
  template <class T>
  __device__ T operator()(const T& a, const T& b) const {
    return b < a ? b : a;
  }
};

// The part of the tree below one thread. In float32 it branches on as above, which keeps the roundings few; for the
// other types it is a comb, one leaf after another, which needs fewer registers.
template <int I, class T, class Op>
struct Tree {
  static constexpr bool kBranches = sizeof(T) == 4;
  T node[kBranches ? 2 * I
                   : I];  // node[I + i] is leaf i, node[j] its children 2j and 2j + 1 together; of a comb, the leaves
  Op op;

  __device__ explicit Tree(const T (&leaf)[I]) {
#pragma unroll
    for (int i = 0; i < I; ++i) node[kBranches ? I + i : i] = leaf[i];
    if constexpr (kBranches) {
#pragma unroll
      for (int j = I - 1; j >= 1; --j) node[j] = op(node[2 * j], node[2 * j + 1]);
    }
  }
  __device__ T all() const {
    if constexpr (kBranches) {
      return node[1];
    } else {
      T total = node[0];
#pragma unroll
      for (int i = 1; i < I; ++i) total = op(total, node[i]);
      return total;
    }
  }
  // `start`, then the first `count` leaves.
  __device__ T first(T start, int count) const {
    if constexpr (kBranches) {
      int at = 0;
#pragma unroll
      for (int size = I; size >= 1; size /= 2) {
        if (count & size) {
          start = op(start, node[(I + at) / size]);
          at += size;
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (i < count) start = op(start, node[i]);
      }
    }
    return start;
  }
  // `start`, then the last `count` leaves.
  __device__ T last(T start, int count) const {
    if constexpr (kBranches) {
      int at = I;
#pragma unroll
      for (int size = I; size >= 1; size /= 2) {
        if (count & size) {
          at -= size;
          start = op(start, node[(I + at) / size]);
        }
      }
    } else {
#pragma unroll
      for (int i = I - 1; i >= 0; --i) {
        if (i >= I - count) start = op(start, node[i]);
      }
    }
    return start;
  }
};

// A thread's leaves as trees of eight, above which sums are taken in type Sum.
template <int I, class T, class Op, class Sum>
struct Trees {
  Trees<I / 2, T, Op, Sum> low, high;
  Op op;

  template <int at>
  __device__ static Trees<I / 2, T, Op, Sum> of(const T (&leaf)[I]) {
    T own[I / 2];
#pragma unroll
    for (int i = 0; i < I / 2; ++i) own[i] = leaf[at + i];
    return Trees<I / 2, T, Op, Sum>(own);
  }
  __device__ explicit Trees(const T (&leaf)[I]) : low(of<0>(leaf)), high(of<I / 2>(leaf)) {}
  __device__ Sum all() const { return op(low.all(), high.all()); }
  // `before` all leaves, then those up to leaf i.
  __device__ T up_to(int i, Sum before) const {
    return i < I / 2 ? low.up_to(i, before) : high.up_to(i - I / 2, op(before, low.all()));
  }
  // `after` all leaves, then those from leaf i on.
  __device__ T from(int i, Sum after) const {
    return i < I / 2 ? low.from(i, op(after, high.all())) : high.from(i - I / 2, after);
  }
  // `after` all leaves, then those behind leaf i.
  __device__ T behind(int i, Sum after) const {
    return i < I / 2 ? low.behind(i, op(after, high.all())) : high.behind(i - I / 2, after);
  }
};
template <int I, class T, class Op, class Sum>
  requires(I <= 8)
struct Trees<I, T, Op, Sum> {
  Tree<I, T, Op> tree;

  __device__ explicit Trees(const T (&leaf)[I]) : tree(leaf) {}
  __device__ Sum all() const { return tree.all(); }
  __device__ T up_to(int i, Sum before) const { return tree.first(T(before), i + 1); }
  __device__ T from(int i, Sum after) const { return tree.last(T(after), I - i); }
  __device__ T behind(int i, Sum after) const { return tree.last(T(after), I - 1 - i); }
};

// What lies before a thread, after it, and all of it.
template <class T>
struct Parts {
  T before, after, all;
};

// L threads; with L = kAny a part of a warp whose size, a power of two, is known only where it runs.
constexpr int kAny = 0;
template <int L>
struct TeamSize {
  __device__ static constexpr int threads() { return L; }
};
template <>
struct TeamSize<kAny> {
  int size;
  __device__ int threads() const { return size; }
};

// The way up the tree over the lanes of a team, and down again from what lies before and after all of them. With kAny
// all lanes exchange, needed or not, so that no branch is around it. Of lanes `kApart` from each other, where as many
// neighbours have the same; `lane` counts those.
template <int L, class T, class Op, int kApart = 1>
struct WarpTree : TeamSize<L> {
  static_assert(L * kApart <= kWarp);
  T sibling[5], all;
  Op op;

  __device__ explicit WarpTree(T own, TeamSize<L> size = {}) : TeamSize<L>(size), all(own) {
#pragma unroll
    for (int level = 0; level < 5; ++level) {
      if (L != kAny && 1 << level >= L) continue;
      const bool counts = 1 << level < this->threads();
      sibling[level] = exchange(all, kApart << level);
      if (counts) all = op(all, sibling[level]);  // all of these operations commute, to the bit
    }
  }
  __device__ Parts<T> down(T before, T after, int lane) const {
#pragma unroll
    for (int level = 4; level >= 0; --level) {
      if (L != kAny && 1 << level >= L) continue;
      const bool counts = 1 << level < this->threads();
      const bool is_right = lane >> level & 1;
      if (counts && is_right) before = op(before, sibling[level]);
      if (counts && !is_right) after = op(after, sibling[level]);
    }
    return {before, after, all};
  }
};

template <int L>
struct Team : TeamSize<L> {
  static constexpr bool kBlock = L > kWarp;
  int thread;  // 0 .. threads() - 1

  __device__ Team() : thread(static_cast<int>(threadIdx.x) & (L - 1)) {}
  // The same, but what follows from the thread's number is computed where it is needed, not once before a loop and
  // kept.
  __device__ Team here() const {
    Team team = *this;
    team.thread = static_cast<int>(thread_here()) & (this->threads() - 1);
    return team;
  }
  __device__ explicit Team(int size) : TeamSize<L>{size}, thread(static_cast<int>(threadIdx.x) & (size - 1)) {}

  __device__ void sync() const {
    if constexpr (kBlock) {
      __syncthreads();
    } else {
      __syncwarp();
    }
  }

  // Is it so for any thread of the team? (And, beside a team in a warp, of its neighbours: a reason to take the longer
  // way that gives the same bits.)
  __device__ bool any(bool is) const {
    if constexpr (kBlock) {
      return __syncthreads_or(is) != 0;
    } else {
      return __any_sync(kAllLanes, is) != 0;
    }
  }

  // `before` and `after`: of what lies outside of the team. `all` is of the team alone.
  template <class T, class Op>
  __device__ Parts<T> parts(T own, T before, T after, T neutral, Op) const {
    if constexpr (!kBlock) {
      return WarpTree<L, T, Op>(own, *this).down(before, after, thread);
    } else {
      constexpr int warps = L / kWarp;
      __shared__ T of_warp[warps];
      const int lane = thread % kWarp, warp = thread / kWarp;
      const WarpTree<kWarp, T, Op> inner(own);
      __syncthreads();  // those before have read
      if (lane == 0) of_warp[warp] = inner.all;
      __syncthreads();
      const Parts<T> outer = WarpTree<kWarp, T, Op>(lane < warps ? of_warp[lane] : neutral).down(before, after, lane);
      Parts<T> parts = inner.down(broadcast_in_warp(outer.before, warp), broadcast_in_warp(outer.after, warp), lane);
      parts.all = outer.all;
      return parts;
    }
  }
  template <class T, class Op>
  __device__ Parts<T> parts(T own, T neutral, Op op) const {
    return parts(own, neutral, neutral, neutral, op);
  }

  // The value of one thread, for all. `zero` where no thread is the one.
  template <class T>
  __device__ T broadcast(T value, int from) const {
    if constexpr (!kBlock) {
      const int last = this->threads() - 1;
      return broadcast_in_warp(value, (lane() & ~last) | (from & last));
    } else {
      __shared__ T shared;
      __syncthreads();
      if (thread == from) shared = value;
      __syncthreads();
      return shared;
    }
  }

  // The value of the thread before; for the first one its own.
  template <class T>
  __device__ T previous(T value) const {
    if constexpr (L == 1) {
      return value;
    } else {
      const T before = __shfl_up_sync(kAllLanes, value, 1);
      if constexpr (!kBlock) {
        return thread == 0 ? value : before;
      } else {
        __shared__ T last[L / kWarp];
        const int lane = thread % kWarp, warp = thread / kWarp;
        __syncthreads();
        if (lane == kWarp - 1) last[warp] = value;
        __syncthreads();
        return thread == 0 ? value : lane == 0 ? last[warp - 1] : before;
      }
    }
  }

  // The value of the nearest thread before this one that has one; its own where there is none.
  template <class T>
  __device__ T nearest_before(T value, bool has_one) const {
    const uint32_t all = __ballot_sync(kAllLanes, has_one);
    const uint32_t before = all & ((1u << lane()) - 1);
    if constexpr (!kBlock) {
      const uint32_t in_team = before & ~((1u << (lane() & ~(this->threads() - 1))) - 1);
      const T found = __shfl_sync(kAllLanes, value, in_team ? 31 - __clz(static_cast<int>(in_team)) : lane());
      return found;
    } else {
      __shared__ T values[L];
      __shared__ uint32_t having[L / kWarp];
      __syncthreads();
      values[thread] = value;
      if (lane() == 0) having[thread / kWarp] = all;
      __syncthreads();
      int warp = thread / kWarp;
      uint32_t candidates = before;
      while (candidates == 0 && warp > 0) candidates = having[--warp];
      return candidates ? values[warp * kWarp + 31 - __clz(static_cast<int>(candidates))] : value;
    }
  }

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
};

}  // namespace pkpo::cuda
