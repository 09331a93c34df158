// Sorting in registers: I entries a thread by a network, then bitonic merges across the lanes of a warp, then merges by
// merge path (Green, McColl and Bader, 2012) through shared memory across the warps of a block.
//
// Cost, I = 8, in compare-exchanges an entry: 19/8 in a thread, then for every doubling to s threads log2(s) exchanges
// with other lanes and 3/2 more in the thread. A merge across warps reads an entry once or twice and writes it once.
#pragma once

#include "cuda/keys.cuh"
#include "cuda/team.cuh"

namespace pkpo::cuda {

template <class Entry>
__device__ inline void order(Entry& a, Entry& b) {
  if constexpr (std::is_same_v<Entry, int32_t>) {
    const int32_t low = min(a, b);
    b = max(a, b);
    a = low;
  } else {
    const bool swap = less(b, a);
    const Entry low = swap ? b : a;
    b = swap ? a : b;
    a = low;
  }
}

// The smaller, or the larger.
template <class Entry>
__device__ inline Entry pick(const Entry& a, const Entry& b, bool smaller) {
  if constexpr (std::is_same_v<Entry, int32_t>) {
    return smaller ? min(a, b) : max(a, b);
  } else {
    return less(a, b) == smaller ? a : b;
  }
}

template <class Entry>
__device__ inline void sort_in_thread(Entry (&e)[4]) {
  order(e[0], e[2]), order(e[1], e[3]);
  order(e[0], e[1]), order(e[2], e[3]);
  order(e[1], e[2]);
}

// 19 exchanges, the fewest possible.
template <class Entry>
__device__ inline void sort_in_thread(Entry (&e)[8]) {
  order(e[0], e[2]), order(e[1], e[3]), order(e[4], e[6]), order(e[5], e[7]);
  order(e[0], e[4]), order(e[1], e[5]), order(e[2], e[6]), order(e[3], e[7]);
  order(e[0], e[1]), order(e[2], e[3]), order(e[4], e[5]), order(e[6], e[7]);
  order(e[2], e[4]), order(e[3], e[5]);
  order(e[1], e[4]), order(e[3], e[6]);
  order(e[1], e[2]), order(e[3], e[4]), order(e[5], e[6]);
}

// Ascending over the L <= 32 threads of a team, thread by thread.
template <int L, int I, class Entry>
__device__ inline void sort_in_warp(Entry (&e)[I], int thread) {
  sort_in_thread(e);
#pragma unroll
  for (int lanes = 2; lanes <= L; lanes *= 2) {
    // Two ascending runs of lanes/2 threads. Against its mirror image each rank takes its side ...
    const bool lower = (thread & (lanes / 2)) == 0;
#pragma unroll
    for (int i = 0; i < I / 2; ++i) {
      const Entry mirror = exchange(e[I - 1 - i], lanes - 1), other = exchange(e[i], lanes - 1);
      e[i] = pick(e[i], mirror, lower);
      e[I - 1 - i] = pick(e[I - 1 - i], other, lower);
    }
    // ... and both sides are bitonic.
#pragma unroll
    for (int stride = lanes / 4; stride >= 1; stride /= 2) {
      const bool first = (thread & stride) == 0;
#pragma unroll
      for (int i = 0; i < I; ++i) e[i] = pick(e[i], exchange(e[i], stride), first);
    }
#pragma unroll
    for (int stride = I / 2; stride >= 1; stride /= 2) {
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (!(i & stride)) order(e[i], e[i | stride]);
      }
    }
  }
}

// Sorts a team's samples, of which a thread has x[i], number i * L + thread, as 32-bit integers: a key without its last
// bits, the sample's number in their place; two instructions an exchange. Gives the numbers by rank, `first` (a
// multiple of L * I) added. Their order is wrong where samples differ in the bits left out, or a NaN has a sign, and
// is_in_order() shows it: seldom where rewards spread, always where they differ in their last bits alone, never for
// 16-bit floats, for integers of 8 and 16 bits and for bool.
template <int I, int L>
__device__ inline void sort_by_short_keys(const Team<L>& team, const float (&x)[I], uint32_t first,
                                          uint32_t (&number)[I]) {
  static_assert(L <= kWarp);
  constexpr uint32_t numbers = L * I - 1;
  int32_t e[I];
#pragma unroll
  for (int i = 0; i < I; ++i) e[i] = short_key_of(x[i], numbers, static_cast<uint32_t>(i * L + team.thread));
  sort_in_warp<L>(e, team.thread);
#pragma unroll
  for (int i = 0; i < I; ++i) number[i] = and_or(static_cast<uint32_t>(e[i]), numbers, first);
}

// Does every value lie above the one before? Then no two are equal and none is NaN. x_before: of the thread before.
template <int I, class V, class Team>
__device__ inline bool is_rising(const Team& team, const V (&x)[I], V x_before) {
  bool rises = team.thread == 0 || x_before < x[0];
#pragma unroll
  for (int i = 1; i < I; ++i) rises &= x[i - 1] < x[i];
  return !team.any(!rises);
}

// The same, but equal values may follow each other, and NaN the others.
template <int I, class V, class Team>
__device__ inline bool is_in_order(const Team& team, const V (&x)[I], V x_before) {
  const auto wrong = [](V before, V after) { return !(before <= after) && after == after; };
  bool any = team.thread > 0 && wrong(x_before, x[0]);
#pragma unroll
  for (int i = 1; i < I; ++i) any |= wrong(x[i - 1], x[i]);
  return !team.any(any);
}

// How many of the first `diagonal` entries of two merged runs come from the first: a(i), i < a_size; b(i), i < b_size.
template <class Index, class A, class B>
__device__ inline Index merge_path(Index diagonal, Index a_size, Index b_size, A a, B b) {
  Index low = diagonal > b_size ? diagonal - b_size : 0, high = diagonal < a_size ? diagonal : a_size;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    if (less(b(diagonal - 1 - middle), a(middle))) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The I entries from `diagonal` on (fewer where the runs end, the rest undefined) of the two runs of the shelf that
// begin at a and b.
template <int I, class Entry>
__device__ inline void merge_on_shelf(const Shelf<Entry>& shelf, uint32_t a, uint32_t a_size, uint32_t b,
                                      uint32_t b_size, uint32_t diagonal, Entry (&e)[I]) {
  uint32_t i = merge_path<uint32_t>(
      diagonal, a_size, b_size, [&](uint32_t at) { return shelf.get(a + at); },
      [&](uint32_t at) { return shelf.get(b + at); });
  uint32_t j = diagonal - i;
  const auto place_a = [&] { return i < a_size ? a + i : a_size > 0 ? a : b; };
  const auto place_b = [&] { return j < b_size ? b + j : b_size > 0 ? b : a; };
  Entry head_a = shelf.get(place_a()), head_b = shelf.get(place_b());
#pragma unroll
  for (int out = 0; out < I; ++out) {
    const bool take_a = j >= b_size || (i < a_size && less(head_a, head_b));
    e[out] = take_a ? head_a : head_b;
    i += take_a;
    j += !take_a;
    if (out + 1 < I) {
      const Entry head = shelf.get(take_a ? place_a() : place_b());
      if (take_a) {
        head_a = head;
      } else {
        head_b = head;
      }
    }
  }
}

// Merges the sorted warps of a block. `memory` holds Shelf<Entry>::bytes(L * I) and is free again afterwards.
template <int L, int I, class Entry>
__device__ inline void merge_warps(Entry (&e)[I], int thread, void* memory) {
  const Shelf<Entry> shelf(memory, L * I);
#pragma unroll 1
  for (uint32_t run = kWarp * I; run < L * I; run *= 2) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < I; ++i) shelf.put(thread * I + i, e[i]);
    __syncthreads();
    const uint32_t rank = thread * I, a = rank & ~(2 * run - 1);
    merge_on_shelf<I>(shelf, a, run, a + run, run, rank - a, e);
  }
  __syncthreads();
}

}  // namespace pkpo::cuda
