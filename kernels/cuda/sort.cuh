// Sorting in registers: I entries a thread by a network, then bitonic merges across the lanes of a warp, then merges by
// merge path (Green, McColl and Bader, 2012) through shared memory across the warps of a block.
//
// Cost in compare-exchanges an entry: 19/8 in a thread that has 8, 60/16 in one that has 16, 185/32 in one that has 32;
// then for every doubling to s threads log2(s) exchanges with other lanes and log2(I)/2 more in the thread. A merge
// across warps reads an entry once or twice and writes it once.
#pragma once

#include "cuda/keys.cuh"
#include "cuda/team.cuh"

namespace pkpo::cuda {

template <class Entry>
__device__ inline void order(Entry& a, Entry& b) {
  const bool swap = less(b, a);
  const Entry low = swap ? b : a;
  b = swap ? a : b;
  a = low;
}
__device__ inline void order(float& a, float& b) {
  const float low = fminf(a, b);
  b = fmaxf(a, b);
  a = low;
}

template <class Entry>
__device__ inline void sort_in_thread(Entry (&e)[2]) {
  order(e[0], e[1]);
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

// 60 exchanges, the fewest known (Green, 1969).
template <class Entry>
__device__ inline void sort_in_thread(Entry (&e)[16]) {
#pragma unroll
  for (int stride = 1; stride <= 8; stride *= 2) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (!(i & stride)) order(e[i], e[i | stride]);
    }
  }
  order(e[5], e[10]), order(e[6], e[9]), order(e[3], e[12]), order(e[13], e[14]), order(e[4], e[8]), order(e[7], e[11]),
      order(e[1], e[2]);
  order(e[1], e[4]), order(e[7], e[13]), order(e[2], e[8]), order(e[11], e[14]);
  order(e[2], e[4]), order(e[5], e[6]), order(e[9], e[10]), order(e[11], e[13]), order(e[3], e[8]), order(e[7], e[12]);
  order(e[6], e[8]), order(e[10], e[12]), order(e[3], e[5]), order(e[7], e[9]);
  order(e[3], e[4]), order(e[5], e[6]), order(e[7], e[8]), order(e[9], e[10]), order(e[11], e[12]);
  order(e[6], e[7]), order(e[8], e[9]);
}

// Twice that, and Batcher's merge: 185 exchanges, the fewest known.
template <class Entry>
__device__ inline void sort_in_thread(Entry (&e)[32]) {
  Entry half[2][16];
#pragma unroll
  for (int i = 0; i < 32; ++i) half[i / 16][i % 16] = e[i];
  sort_in_thread(half[0]);
  sort_in_thread(half[1]);
#pragma unroll
  for (int i = 0; i < 32; ++i) e[i] = half[i / 16][i % 16];
#pragma unroll
  for (int i = 0; i < 16; ++i) order(e[i], e[i + 16]);
#pragma unroll
  for (int stride = 8; stride >= 1; stride /= 2) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      if ((i & stride) && i + stride < 32) order(e[i], e[i + stride]);
    }
  }
}

// A bitonic run in a thread becomes ascending.
template <int I, class Entry>
__device__ inline void merge_in_thread(Entry (&e)[I]) {
#pragma unroll
  for (int stride = I / 2; stride >= 1; stride /= 2) {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if (!(i & stride)) order(e[i], e[i | stride]);
    }
  }
}

// Ascending over the threads of a team, thread by thread.
template <int L, int I, class Entry>
__device__ inline void sort_in_warp(const Team<L>& team, Entry (&e)[I], int thread) {
  // Entries of 64 bits are sorted where short keys were not enough, which is rare: short code.
  [[maybe_unused]] constexpr int kUnroll = L == kAny || L >= 8 || sizeof(Entry) == 8 ? 1 : 4;
  sort_in_thread(e);
#pragma unroll kUnroll
  for (int lanes = 2; lanes <= team.threads(); lanes *= 2) {
    const auto pick = [](const Entry& a, const Entry& b, bool smaller) { return less(a, b) == smaller ? a : b; };
    // Two ascending runs of lanes/2 threads. Against its mirror image each rank takes its side ...
    const bool lower = (thread & (lanes / 2)) == 0;
#pragma unroll
    for (int i = 0; i < I / 2; ++i) {
      const Entry mirror = exchange(e[I - 1 - i], lanes - 1), other = exchange(e[i], lanes - 1);
      e[i] = pick(e[i], mirror, lower);
      e[I - 1 - i] = pick(e[I - 1 - i], other, lower);
    }
    // ... and both sides are bitonic.
#pragma unroll kUnroll
    for (int stride = lanes / 4; stride >= 1; stride /= 2) {
      const bool first = (thread & stride) == 0;
#pragma unroll
      for (int i = 0; i < I; ++i) e[i] = pick(e[i], exchange(e[i], stride), first);
    }
    merge_in_thread(e);
  }
}

// The same for floats, none of them NaN, with the ALU spared: of two lanes one takes the smaller and one the larger by
// the same instruction, min(own, -other), where the latter's floats have the other sign. Signs are changed on the way,
// by multiplications, from what one exchange needs to what the next one does; a run of the other sign is a descending
// one, so that two neighbours are bitonic without a mirror. The threads in which the floats come with the other sign
// are those of sign_to_sort_with().
__device__ inline uint32_t sign_to_sort_with(int thread) {
  return static_cast<uint32_t>(__popc(static_cast<uint32_t>(thread))) << 31;
}
template <int L, int I>
__device__ inline void sort_in_warp(const Team<L>& team, float (&e)[I], int thread) {
  // Longer code would not stay in the caches of instructions.
  [[maybe_unused]] constexpr int kUnroll = L == kAny || L >= 8 ? 1 : 4;
  sort_in_thread(e);
#pragma unroll kUnroll
  for (int level = 1; 1 << level <= team.threads(); ++level) {
#pragma unroll kUnroll
    for (int bit = level - 1; bit >= 0; --bit) {
#pragma unroll
      for (int i = 0; i < I; ++i) e[i] = fminf(e[i], -exchange(e[i], 1 << bit));
      const uint32_t change = bit > 0 ? (thread ^ thread >> 1) << (32 - bit) : static_cast<uint32_t>(thread) << 31;
      const float sign = __uint_as_float(and_or(change, 0x80000000u, 0x3f800000u));
#pragma unroll
      for (int i = 0; i < I; ++i) e[i] *= sign;
    }
    merge_in_thread<I>(e);
  }
}

// The number, among a team's samples, I for each thread, of the first of a thread's samples 4 j .. 4 j + 3, which
// follow one another, so that they are read at once. Teams of a warp begin with different ones, so that all banks of
// shared memory are read.
template <int I, int L>
__device__ inline uint32_t number_of(const Team<L>& team, int j) {
  uint32_t turned = static_cast<uint32_t>(j);
  if constexpr (L != kAny) {
    constexpr uint32_t teams_on_all_banks = L * I < 32 ? 32 / (L * I) : 1;
    const uint32_t which = static_cast<uint32_t>(Team<L>::lane()) / L;
    turned ^= which / teams_on_all_banks % (I / 4);
  }
  return 4 * (turned * team.threads() + static_cast<uint32_t>(team.thread));
}

// Sorts a team's samples x, which have the numbers of number_of(), as floats: the values without their last bits, the
// samples' numbers in their place; two instructions an exchange in a thread, three between lanes. Gives the numbers by
// rank, `first` (a multiple of I times the threads) added. Their order is wrong where samples differ in the bits left
// out, or infinite ones stand with NaN. Absent ones, NaN behind all that are there, stay behind them.
template <int I, int L>
__device__ inline void sort_short_keys(const Team<L>& team, const float (&x)[I], uint32_t first,
                                       uint32_t (&sample)[I]) {
  static_assert(L <= kWarp);
  const uint32_t numbers = team.threads() * I - 1, sign = sign_to_sort_with(team.thread);
  // An infinity and a NaN have no short key. Their sum, with whatever else, is none either.
  float e[I], sums[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < I; ++i) {
    e[i] = x[i];
    sums[i % 4] += x[i];
  }
  const float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  if (team.any(!(fabs(sum) < infinity<float>()))) {
#pragma unroll
    for (int i = 0; i < I; ++i) e[i] = finite(e[i]);
  }
#pragma unroll
  for (int i = 0; i < I; ++i) e[i] = short_key_of(e[i], numbers, (number_of<I>(team, i / 4) | sign) ^ (i % 4));
  sort_in_warp(team, e, computed_here(team.thread));
#pragma unroll
  for (int i = 0; i < I; ++i) sample[i] = and_or(__float_as_uint(e[i]), numbers, first);
}

// From this size on a difference of two values may overflow.
template <class V>
__device__ inline V too_large() {
  return sizeof(V) == 8 ? V(0x1p1022) : V(0x1p126f);
}
template <class V>
__device__ inline bool is_in_range(V x) {
  return fabs(x) < too_large<V>();
}

// x[from + index % count] by selections: an index that is not known keeps an array out of registers.
template <int from, int count, int I, class V>
__device__ inline V chosen(const V (&x)[I], uint32_t index) {
  if constexpr (count == 1) {
    return x[from];
  } else {
    const V low = chosen<from, count / 2>(x, index), high = chosen<from + count / 2, count / 2>(x, index);
    return index & (count / 2) ? high : low;
  }
}

// The value at rank size - 1 of a team that is full or has `size` samples, for all of its threads; 0 where there is
// none. If it is in range no sample is NaN, since only what is out of range stands with those.
template <int I, class V, class Team>
__device__ inline V top_of(const Team& team, const V (&x)[I], bool is_full, uint32_t size) {
  if (is_full) return team.broadcast(x[I - 1], team.threads() - 1);
  const V top = team.broadcast(chosen<0, I>(x, size - 1), static_cast<int>((size - 1) / I));
  return size > 0 ? top : V(0);
}

// Is the top value in range, and does every value lie above the one before? Then no two are equal and none is NaN but
// behind the top. x_before: of the thread before.
template <int I, class V, class Team>
__device__ inline bool is_rising(const Team& team, const V (&x)[I], V x_before, V top) {
  bool rises = is_in_range(top) && (team.thread == 0 || !(x_before >= x[0]));
#pragma unroll
  for (int i = 1; i < I; ++i) rises &= !(x[i - 1] >= x[i]);
  return !team.any(!rises);
}

// Does a value stand before a smaller one, or a NaN before another value?
template <class V>
__device__ inline bool is_wrong(V before, V after) {
  return !(before <= after) && after == after;
}
template <int I, class V, class Team>
__device__ inline bool is_in_order(const Team& team, const V (&x)[I], V x_before, V top) {
  bool any = team.thread > 0 && is_wrong(x_before, x[0]);
  if (is_in_range(top)) {
#pragma unroll
    for (int i = 1; i < I; ++i) any |= x[i - 1] > x[i];
  } else {
#pragma unroll
    for (int i = 1; i < I; ++i) any |= is_wrong(x[i - 1], x[i]);
  }
  return !team.any(any);
}

// Exchanges values that stand wrongly with their neighbours, every pair of neighbours once.
template <int I, int L>
__device__ inline void order_neighbours(const Team<L>& team, float (&x)[I], uint32_t (&sample)[I]) {
#pragma unroll
  for (int from = 0; from < 2; ++from) {
#pragma unroll
    for (int i = from; i + 1 < I; i += 2) {
      const bool swap = is_wrong(x[i], x[i + 1]);
      const float low = swap ? x[i + 1] : x[i];
      const uint32_t its_sample = swap ? sample[i + 1] : sample[i];
      x[i + 1] = swap ? x[i] : x[i + 1];
      sample[i + 1] = swap ? sample[i] : sample[i + 1];
      x[i] = low;
      sample[i] = its_sample;
    }
  }
  if constexpr (L != 1) {
    const float x_after = __shfl_down_sync(kAllLanes, x[0], 1), x_before = __shfl_up_sync(kAllLanes, x[I - 1], 1);
    const uint32_t after = __shfl_down_sync(kAllLanes, sample[0], 1),
                   before = __shfl_up_sync(kAllLanes, sample[I - 1], 1);
    if (team.thread < team.threads() - 1 && is_wrong(x[I - 1], x_after)) x[I - 1] = x_after, sample[I - 1] = after;
    if (team.thread > 0 && is_wrong(x_before, x[0])) x[0] = x_before, sample[0] = before;
  }
}

// Sorts the `size` samples x of a team, numbers `first` and on, by short keys. Gives values and numbers by rank, the
// value of the thread before, top_of() and what is_rising() says; and whether they are in order. Few are not where
// rewards spread: of 512 drawn at random one or two pairs have the same short key, of 1,024, whose keys are shorter by
// a bit, some ten. These are exchanged, of so many samples before anything is looked at; what is still not in order is
// to be sorted with all bits. 16-bit floats, integers of 8 and 16 bits and bool, if finite, are in order at once, but
// for large integers of 16 bits among more than 512. values_at(samples, values) gives NaN where there is no sample.
template <int I, int L, class ValuesAt>
__device__ inline bool sort_by_short_keys(const Team<L>& team, const float (&x)[I], uint32_t first, bool is_full,
                                          uint32_t size, ValuesAt values_at, float (&value)[I], uint32_t (&sample)[I],
                                          float& before, float& top, bool& rises) {
  constexpr bool first_of_all = L * I > 512;  // are neighbours exchanged?
  sort_short_keys(team, x, first, sample);
  values_at(sample, value);
#pragma unroll 1
  for (int turn = first_of_all;; ++turn) {
    if (first_of_all) order_neighbours(team, value, sample);
    before = team.previous(value[I - 1]);
    top = top_of(team, value, is_full, size);
    rises = is_rising(team, value, before, top);
    if (rises || is_in_order(team, value, before, top)) return true;
    if (turn == 2) return false;
    if (!first_of_all) order_neighbours(team, value, sample);
  }
}

// The I entries from `diagonal` on of two runs of the shelf, `size` entries each from a and from b, merged.
template <int I, class Shelf, class Entry>
__device__ inline void merge_on_shelf(const Shelf& shelf, uint32_t a, uint32_t b, uint32_t size, uint32_t diagonal,
                                      Entry (&e)[I]) {
  // How many of the entries before come from a, and how many from b.
  uint32_t i = diagonal > size ? diagonal - size : 0, high = diagonal < size ? diagonal : size;
  while (i < high) {
    const uint32_t middle = i + (high - i) / 2;
    if (less(shelf.get(b + diagonal - 1 - middle), shelf.get(a + middle))) {
      high = middle;
    } else {
      i = middle + 1;
    }
  }
  uint32_t j = diagonal - i;
  const auto place_a = [&] { return i < size ? a + i : a; };
  const auto place_b = [&] { return j < size ? b + j : b; };
  Entry head_a = shelf.get(place_a()), head_b = shelf.get(place_b());
#pragma unroll
  for (int out = 0; out < I; ++out) {
    const bool take_a = j >= size || (i < size && less(head_a, head_b));
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

// Merges the sorted warps of a block, of which the first `size` samples are there; behind those nothing needs to be
// merged. The shelf is free again afterwards.
template <int L, int I, class Shelf, class Entry>
__device__ inline void merge_warps(Entry (&e)[I], int thread, uint32_t size, const Shelf& shelf) {
#pragma unroll 1
  for (uint32_t run = kWarp * I; run < size; run *= 2) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < I; ++i) shelf.put(thread * I + i, e[i]);
    __syncthreads();
    const uint32_t rank = thread * I, a = rank & ~(2 * run - 1);
    if (rank < size) merge_on_shelf<I>(shelf, a, a + run, run, rank - a, e);
  }
  __syncthreads();
}

}  // namespace pkpo::cuda
