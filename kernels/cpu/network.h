// Sorting many groups side by side: column q of a block holds sample q of as many groups as a register has lanes, and a
// compare-exchange of two columns is a minimum and a maximum. Which way each exchange went is recorded, a mask an
// exchange; running the network backwards over the recorded masks brings any columns that lie in sorted order (the
// results) back to the places of the samples, and running it forwards again brings columns that lie in the order of the
// samples (incoming gradients) into sorted order. No index is carried and nothing is gathered or scattered.
//
// Few columns are sorted by a network that is written out (sorting()): up to 10 by Batcher's merge exchange (Knuth, The
// Art of Computer Programming, vol. 3, algorithm 5.2.2M), up to 16 by Green's (1969), more by parts that Batcher's
// odd-even merge puts together. Larger blocks are sorted so by parts, and the parts merged bitonically (Batcher, 1968):
// an exchange of every column with its mirror image, then half-cleaners at falling distances. Up to three of these
// layers are done at a time, on 8 columns in registers, and the last four on 16. Columns behind the last one count as
// infinitely large: an exchange with one of them never moves anything, and is left out.
//
// Cost: 19, 60, 185, 531 and 4,044 exchanges at 8, 16, 32, 64 and 256 columns with AVX-512; 562 and 4,168 of the last
// two with AVX2. To sort, one is a comparison, a minimum, a maximum or selection, and the store of a mask; to move
// columns by the record, the load of a mask and two selections.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "lanes.h"

namespace pkpo::cpu {
namespace {

struct Exchange {
  int low = 0, high = 0;
};

template <class Body>
constexpr void merge_exchange(int n, Body body) {
  int t = 0;
  while ((1 << t) < n) ++t;
  for (int p = t > 0 ? 1 << (t - 1) : 0; p > 0; p /= 2) {
    for (int q = 1 << (t - 1), r = 0, d = p;;) {
      for (int i = 0; i + d < n; ++i) {
        if ((i & p) == r) body(i, i + d);
      }
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
}

// Sorts 16 columns, of which the first n are there, by 60 exchanges, the fewest known.
template <class Body>
constexpr void green(int n, Body body) {
  const auto exchange = [&](int low, int high) {
    if (high < n) body(low, high);
  };
  for (int d = 1; d <= 8; d *= 2) {
    for (int i = 0; i < 16; ++i) {
      if ((i & d) == 0) exchange(i, i + d);
    }
  }
  constexpr Exchange others[] = {
      {5, 10}, {6, 9},   {3, 12}, {13, 14}, {4, 8},   {7, 11}, {1, 2},  // one layer a line
      {1, 4},  {7, 13},  {2, 8},  {11, 14},                             //
      {2, 4},  {5, 6},   {9, 10}, {11, 13}, {3, 8},   {7, 12},          //
      {6, 8},  {10, 12}, {3, 5},  {7, 9},                               //
      {3, 4},  {5, 6},   {7, 8},  {9, 10},  {11, 12},                   //
      {6, 7},  {8, 9},
  };
  for (const auto& [low, high] : others) exchange(low, high);
}

// Merges two sorted sequences, one after the other, of which the first n of `all` columns (a power of two, at least 16)
// are there. Layer by layer this would go through all of them each time, which are more than registers: so the layers
// of large distances are done for sets of 8 columns that have exchanges with each other alone, and the others on a way
// along the columns, each layer as far as the one before it has come.
template <class Body>
constexpr void odd_even_merge(int n, int all, Body body) {
  const auto layer = [&](int d, int begin, int end, int step) {
    for (int i = begin; i < std::min(end, n - d); i += step) {
      if (d == all / 2 || (i & d) != 0) body(i, i + d);
    }
  };
  const int apart = all / 8;
  for (int first = 0; first < apart; ++first) {
    for (int d = all / 2; d >= apart; d /= 2) layer(d, first, n, apart);
  }
  for (int begin = 0; begin < n + apart; begin += 8) {
    for (int d = apart / 2; d > 0; d /= 2) {
      const int from = begin - apart + d;
      layer(d, std::max(from, 0), from + 8, 1);
    }
  }
}

// The exchanges that sort n columns. A part is sorted before the other is begun, so that it is in registers alone.
// Merge exchange, which goes through all columns again and again, serves at 17 to 20, where it takes fewer; at 36 and
// 40, where it would too (241 and 283 instead of 259 and 289), rows took 3 % less and 7 % longer (AVX-512).
constexpr std::vector<Exchange> sorting(int n) {
  std::vector<Exchange> all;
  const auto add = [&](int low, int high) { all.push_back({low, high}); };
  if (n <= 10 || (n > 16 && n <= 20)) {
    merge_exchange(n, add);
  } else if (n <= 16) {
    green(n, add);
  } else {
    const int whole = static_cast<int>(std::bit_ceil(static_cast<unsigned>(n))), half = whole / 2;
    all = sorting(half);
    for (const auto& [low, high] : sorting(n - half)) add(half + low, half + high);
    odd_even_merge(n, whole, add);
  }
  return all;
}

// The half-cleaners of a bitonic merge from `distance` (a power of two) on.
template <class Body>
constexpr void half_cleaners(int n, int distance, Body body) {
  for (int d = distance; d > 0; d /= 2) {
    for (int i = 0; i + d < n; ++i) {
      if ((i & d) == 0) body(i, i + d);
    }
  }
}

// sort: n columns in any order. clean: a bitonic sequence of `all` columns (a power of two), of which the first n are
// there. merge: two sorted sequences, one after the other, that would be `all` columns together.
enum class Kind { sort, clean, merge };

template <class Body>
constexpr void for_each_exchange(Kind kind, int n, int all, Body body) {
  if (kind == Kind::sort) {
    for (const auto& [low, high] : sorting(n)) body(low, high);
    return;
  }
  if (kind == Kind::clean) return half_cleaners(n, all / 2, body);
  for (int i = all - n; i < all / 2; ++i) body(i, all - 1 - i);
  half_cleaners(n, all / 4, body);
}

constexpr int exchange_count(Kind kind, int n, int all) {
  int size = 0;
  for_each_exchange(kind, n, all, [&](int, int) { ++size; });
  return size;
}

template <Kind kind, int n, int all = n>
struct Network {
  static constexpr int size = exchange_count(kind, n, all);
  static constexpr std::array<Exchange, static_cast<size_t>(size)> exchanges = [] {
    std::array<Exchange, static_cast<size_t>(size)> exchanges{};
    size_t next = 0;
    for_each_exchange(kind, n, all, [&](int low, int high) { exchanges[next++] = {low, high}; });
    return exchanges;
  }();
};

// What is done at an exchange of columns a and b, a before b.
enum class Step { record, apply, revert };  // record: sort, and write down how; apply, revert: move by what is written

template <class L, Step step>
inline __attribute__((always_inline)) void exchange(typename L::Vector& a, typename L::Vector& b,
                                                    typename L::Mask* mask) {
  if constexpr (step == Step::apply || step == Step::revert) {
    const typename L::Vector low = L::select(*mask, b, a);
    b = L::select(*mask, a, b);
    a = low;
  } else {
    *mask = L::less(b, a);
    const typename L::Vector low = L::min(a, b);
    b = L::max_by(*mask, a, b);
    a = low;
  }
}

// The exchanges of a network, from its end to its beginning for Step::revert.
template <class L, class N, Step step, int n>
inline __attribute__((always_inline)) void run_exchanges(typename L::Vector (&c)[n], typename L::Mask* masks) {
  unrolled<N::size>([&]<int i>() __attribute__((always_inline)) {
    constexpr int j = step == Step::revert ? N::size - 1 - i : i;
    exchange<L, step>(c[N::exchanges[j].low], c[N::exchanges[j].high], masks + j);
  });
}

// So many columns are sorted by a network that is written out, and cleaned at the end of a merge: with AVX-512 and AVX2
// twice as many as there are registers. With AVX2 64, or with plain vectors 32, took a tenth longer.
constexpr int kSorted = kChecked ? 16 : kVectorBytes, kCleaned = 16;

// Networks exist for these numbers of columns; a block is filled up with infinite columns to the next one.
constexpr int kNetworkSizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  10, 12, 14, 16,
                                 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64};
constexpr int kStep = 4;  // beyond kSorted, every so many columns

// Columns of a block that can sort n.
constexpr int network_size(int64_t n) {
  if (n > kSorted) return static_cast<int>((n + kStep - 1) / kStep * kStep);
  for (int size : kNetworkSizes) {
    if (size >= n) return size;
  }
  return kSorted;
}

// So many masks has the record at most: in each layer a column is in one exchange.
constexpr int64_t most_masks(int columns) {
  const int64_t levels = std::bit_width(static_cast<unsigned>(columns - 1));
  return levels * (levels + 1) / 2 * (columns / 2);
}

// What follows takes masks from a record that it goes along: behind them when it is done, from the end of the record to
// its beginning for Step::revert.
template <class L, Step step>
typename L::Mask* next_masks(typename L::Mask*& record, int64_t count) {
  if constexpr (step == Step::revert) return record -= count;
  return (record += count) - count;
}

template <class L, Kind kind, int n, Step step, class Value>
void run_in_registers(Value* columns, typename L::Mask*& record) {
  using N = Network<kind, n, kind == Kind::sort ? n : kCleaned>;
  static_assert(kind != Kind::sort || N::size <= most_masks(n));
  typename L::Vector c[n];
  unrolled<n>([&]<int i>() { c[i] = L::load(columns + i * L::count); });
  run_exchanges<L, N, step>(c, next_masks<L, step>(record, N::size));
  unrolled<n>([&]<int i>() { L::store(columns + i * L::count, c[i]); });
}

template <class L, Kind kind, Step step, class Value>
void run_in_registers(int n, Value* columns, typename L::Mask*& record) {
  using Run = void (*)(Value*, typename L::Mask*&);
  static constexpr std::array<Run, kSorted + 1> runs = [] {
    std::array<Run, kSorted + 1> runs{};
    unrolled<static_cast<int>(std::size(kNetworkSizes))>([&]<int i>() {
      constexpr int size = kNetworkSizes[i];
      if constexpr (kind == Kind::sort ? size <= kSorted : size <= kCleaned && size % kStep == 0) {
        runs[size] = run_in_registers<L, kind, size, step>;
      }
    });
    return runs;
  }();
  runs[static_cast<size_t>(n)](columns, record);
}

// The first layers of a larger merge, or of its half-cleaners: networks across columns that lie `distance` apart. There
// is one from each of the columns [first, last) on: column i, i + distance, ..., where the lower half of a merge starts
// from the mirror image of i instead. Of its `all` columns the first n are there.
template <class L, Kind kind, int n, int all, Step step, class Value>
void run_across(Value* columns, int64_t distance, int64_t first, int64_t last, typename L::Mask*& record) {
  using N = Network<kind, n, all>;
  typename L::Mask* masks = next_masks<L, step>(record, (last - first) * N::size);
  for (int64_t i = first; i < last; ++i, masks += N::size) {
    Value *from_i = columns + i * L::count, *from_mirror = columns + (distance - 1 - i) * L::count;
    const auto column = [&]<int j>() {
      return (kind == Kind::merge && j < all / 2 ? from_mirror : from_i) + j * distance * L::count;
    };
    typename L::Vector c[n];
    unrolled<n>([&]<int j>() { c[j] = L::load(column.template operator()<j>()); });
    run_exchanges<L, N, step>(c, masks);
    unrolled<n>([&]<int j>() { L::store(column.template operator()<j>(), c[j]); });
  }
}

constexpr int kMostLayers = 3;  // at a time; with four, 16 columns, it takes longer

template <class L, Kind kind, Step step, class Value>
void run_layers(int layers, int n, Value* columns, int64_t distance, int64_t first, int64_t last,
                typename L::Mask*& record) {
  using Run = void (*)(Value*, int64_t, int64_t, int64_t, typename L::Mask*&);
  static constexpr auto runs = [] {
    std::array<std::array<Run, (1 << kMostLayers) + 1>, kMostLayers + 1> runs{};
    unrolled<kMostLayers>([&]<int i>() {
      constexpr int all = 2 << i;
      unrolled<all + 1>([&]<int n>() {
        if constexpr (n > 1 && (kind == Kind::clean || n >= all / 2)) {
          runs[i + 1][n] = run_across<L, kind, n, all, step>;
        }
      });
    });
    return runs;
  }();
  if (n > 1 && first < last) runs[layers][n](columns, distance, first, last, record);
}

// Sorts blocks of up to kLargest columns and moves others by the record of it. Of the parts of a large block, those
// that lie in the cache together are done together.
template <class Value>
class ColumnSort {
 public:
  using L = Lanes<Value>;
  using Mask = typename L::Mask;

  // Beyond, a group by itself takes no longer, or not much: 8,192 with AVX-512, 2,048 with AVX2, else 512.
  static constexpr int kLargest = 2 * kVectorBytes * kVectorBytes;

  // columns: what network_size() gives.
  void set(int columns) { n_ = columns; }
  int columns() const { return n_; }

  void sort(Value* columns, Mask* record) {
    end_ = record;
    run<Step::record>(columns, n_, end_);
  }
  // Moves columns as those were that have been sorted last.
  void apply(Value* columns, Mask* record) const { run<Step::apply>(columns, n_, record); }
  // Moves columns back.
  void revert(Value* columns) const {
    Mask* record = end_;
    run<Step::revert>(columns, n_, record);
  }

 private:
  static Value* column(Value* columns, int i) { return columns + static_cast<int64_t>(i) * L::count; }

  // Calls the parts of a network in their order, or the other way round.
  template <Step step, class... Part>
  static void in_order(Part... part) {
    if constexpr (step == Step::revert && sizeof...(part) > 1) {
      [](auto first, auto... others) {
        in_order<step>(others...);
        first();
      }(part...);
    } else {
      (part(), ...);
    }
  }

  template <Step step>
  static void run(Value* columns, int n, Mask*& record) {
    if (n <= kSorted) return run_in_registers<L, Kind::sort, step>(n, columns, record);
    const int all = static_cast<int>(std::bit_ceil(static_cast<unsigned>(n))), half = all / 2;
    in_order<step>([&] { run<step>(columns, half, record); },
                   [&] { run<step>(column(columns, half), n - half, record); },
                   [&] { finish<Kind::merge, step>(columns, n, all, record); });
  }

  // Merges sorted halves, or cleans what is bitonic: the first n of `all` columns.
  template <Kind kind, Step step>
  static void finish(Value* columns, int n, int all, Mask*& record) {
    if constexpr (kind == Kind::clean) {
      if (all == kCleaned) return run_in_registers<L, Kind::clean, step>(n, columns, record);
    }
    const int log_all = std::countr_zero(static_cast<unsigned>(all)),
              left = log_all - std::countr_zero(unsigned{kCleaned});
    const int layers = left == kMostLayers + 1 ? 2 : std::min(left, kMostLayers);
    const int log = log_all - layers, distance = 1 << log;  // divisions are slow
    const int whole = n >> log, longer = n & (distance - 1);
    in_order<step>([&] { run_layers<L, kind, step>(layers, whole + 1, columns, distance, 0, longer, record); },
                   [&] { run_layers<L, kind, step>(layers, whole, columns, distance, longer, distance, record); },
                   [&] {
                     const int count = whole + (longer > 0);
                     for (int i = 0; i < count; ++i) {
                       const int begin = (step == Step::revert ? count - 1 - i : i) * distance;
                       finish<Kind::clean, step>(column(columns, begin), std::min(distance, n - begin), distance,
                                                 record);
                     }
                   });
  }

  int n_ = 0;
  Mask* end_ = nullptr;  // of the record
};

}  // namespace
}  // namespace pkpo::cpu
