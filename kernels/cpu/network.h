// Sorting many groups side by side: column q of a block holds sample q of as many groups as a register has lanes, and a
// compare-exchange of two columns is a minimum and a maximum. Which way each exchange went is recorded, a mask an
// exchange; running the network backwards over the recorded masks brings any columns that lie in sorted order (the
// results) back to the places of the samples, and running it forwards again brings columns that lie in the order of the
// samples (incoming gradients) into sorted order. No index is carried and nothing is gathered or scattered.
//
// Up to 32 columns are sorted in registers by Batcher's merge exchange (Knuth, The Art of Computer Programming, vol. 3,
// algorithm 5.2.2M, which works for every number of columns). Larger blocks are sorted 32 columns at a time and merged
// bitonically (Batcher, 1968): an exchange of every column with its mirror image, then half-cleaners at falling
// distances, the last five of them in registers again. Columns behind the last one count as infinitely large: an
// exchange with one of them never moves anything, and is left out.
//
// Cost: 19, 63, 191, 574 and 4,216 exchanges at 8, 16, 32, 64 and 256 columns. To sort, one is a comparison, a minimum,
// a maximum or selection, and the store of a mask; to move columns by the record, the load of a mask and two
// selections.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

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

// The last five half-cleaners of a bitonic merge, on 32 columns of which n are there.
template <class Body>
constexpr void clean(int n, Body body) {
  for (int d = 16; d > 0; d /= 2) {
    for (int i = 0; i + d < n; ++i) {
      if ((i & d) == 0) body(i, i + d);
    }
  }
}

enum class Kind { sort, clean };

constexpr int exchange_count(Kind kind, int n) {
  int size = 0;
  const auto count = [&](int, int) { ++size; };
  kind == Kind::sort ? merge_exchange(n, count) : clean(n, count);
  return size;
}

template <Kind kind, int n>
struct Network {
  static constexpr int size = exchange_count(kind, n);
  static constexpr std::array<Exchange, static_cast<size_t>(size)> exchanges = [] {
    std::array<Exchange, static_cast<size_t>(size)> exchanges{};
    size_t next = 0;
    const auto add = [&](int low, int high) { exchanges[next++] = {low, high}; };
    kind == Kind::sort ? merge_exchange(n, add) : clean(n, add);
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

// A network of n columns in registers.
template <class L, Kind kind, int n, Step step, class Value>
void run_in_registers(Value* columns, typename L::Mask* masks) {
  typename L::Vector c[n];
  unrolled<n>([&]<int i>() { c[i] = L::load(columns + i * L::count); });
  run_exchanges<L, Network<kind, n>, step>(c, masks);
  unrolled<n>([&]<int i>() { L::store(columns + i * L::count, c[i]); });
}

// Networks exist for these numbers of columns; a block is filled up with infinite columns to the next one.
constexpr int kNetworkSizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32};
constexpr int kInRegisters = 32;

// Columns of a block that can sort n.
constexpr int network_size(int64_t n) {
  if (n > kInRegisters) return static_cast<int>((n + 7) / 8 * 8);
  for (int size : kNetworkSizes) {
    if (size >= n) return size;
  }
  return kInRegisters;
}

template <class L, Kind kind, Step step, class Value>
void run_up_to_32(int n, Value* columns, typename L::Mask* masks) {
  using Run = void (*)(Value*, typename L::Mask*);
  static constexpr std::array<Run, kInRegisters + 1> runs = [] {
    std::array<Run, kInRegisters + 1> runs{};
    [&]<size_t... i>(std::index_sequence<i...>) {
      const auto add = [&]<int size>() {
        // A merge never leaves other numbers of columns than these.
        if constexpr (kind == Kind::sort || size % 8 == 0) runs[size] = run_in_registers<L, kind, size, step>;
      };
      (add.template operator()<kNetworkSizes[i]>(), ...);
    }(std::make_index_sequence<sizeof(kNetworkSizes) / sizeof(int)>());
    return runs;
  }();
  runs[static_cast<size_t>(n)](columns, masks);
}

// The end of a merge of up to 64 columns: the exchanges of each of the last n with its mirror image among the 32
// before, and the half-cleaners of the last n, which stay in registers in between. The half-cleaners of the first 32
// are not in it. Masks: of the mirrored exchanges from the last column on, then of the half-cleaners.
template <class L, int n, Step step, class Value>
void mirror_and_clean(Value* columns, typename L::Mask* masks) {
  Value* upper = columns + kInRegisters * L::count;
  typename L::Vector c[n];
  const auto mirror = [&]<int i>() {
    Value* partner = columns + (kInRegisters - 1 - i) * L::count;
    typename L::Vector low = L::load(partner);
    exchange<L, step>(low, c[i], masks + i);
    L::store(partner, low);
  };
  unrolled<n>([&]<int i>() { c[i] = L::load(upper + i * L::count); });
  if constexpr (step != Step::revert) unrolled<n>(mirror);
  run_exchanges<L, Network<Kind::clean, n>, step>(c, masks + n);
  if constexpr (step == Step::revert) unrolled<n>(mirror);
  unrolled<n>([&]<int i>() { L::store(upper + i * L::count, c[i]); });
}

// Exchanges of one layer that goes through memory: columns i and partner(i) for i in [0, count).
template <class L, Step step, class Value, class Partner>
void run_layer(Value* columns, int64_t count, typename L::Mask* masks, Partner partner) {
  for (int64_t i = 0; i < count; ++i) {
    Value *low = columns + i * L::count, *high = columns + partner(i) * L::count;
    typename L::Vector a = L::load(low), b = L::load(high);
    exchange<L, step>(a, b, masks + i);
    L::store(low, a);
    L::store(high, b);
  }
}

// The network of up to kLargest columns as a list of parts, each a network in registers or a layer through memory.
class Plan {
 public:
  // Beyond, a group by itself is sorted as fast (measured: where a register is narrower, earlier).
  static constexpr int kLargest = 32 * kVectorBytes;

  // n: what network_size() gives.
  void set(int n) {
    if (n == columns_) return;
    columns_ = n;
    count_ = masks_ = 0;
    for (int begin = 0; begin < n; begin += kInRegisters) {
      const int size = std::min(kInRegisters, n - begin);
      add(Part::sort, begin, size, exchange_count(Kind::sort, size));
    }
    for (int merged = 2 * kInRegisters; merged / 2 < n; merged *= 2) {
      for (int begin = 0; begin + merged / 2 < n; begin += merged) {
        const int end = std::min(begin + merged, n);
        if (merged == 2 * kInRegisters) {
          const int size = end - begin - kInRegisters;
          add(Part::mirror_and_clean, begin, size, size + exchange_count(Kind::clean, size));
          add(Part::clean, begin, kInRegisters, exchange_count(Kind::clean, kInRegisters));
          continue;
        }
        add(Part::mirror, begin, merged, end - begin - merged / 2);
        for (int size = merged / 2; size > kInRegisters; size /= 2) {
          for (int at = begin; at + size / 2 < end; at += size) {
            add(Part::half, at, size, std::min(size / 2, end - at - size / 2));
          }
        }
        for (int at = begin; at < end; at += kInRegisters) {
          const int size = std::min(kInRegisters, end - at);
          add(Part::clean, at, size, exchange_count(Kind::clean, size));
        }
      }
    }
  }

  int columns() const { return columns_; }
  int masks() const { return masks_; }  // one an exchange

  // Runs the network over the columns, from its end to its beginning for Step::revert.
  template <class L, Step step, class Value>
  void run(Value* columns, typename L::Mask* masks) const {
    for (int i = 0; i < count_; ++i) {
      run_part<L, step>(parts_[step == Step::revert ? count_ - 1 - i : i], columns, masks);
    }
  }

 private:
  struct Part {
    enum Kind { sort, clean, mirror_and_clean, mirror, half } kind;
    int begin, size, exchanges;  // size: of a network; of a whole merge for mirror; of both halves for half; of the
                                 // upper half for mirror_and_clean
    int first_mask;
  };

  void add(typename Part::Kind kind, int begin, int size, int exchanges) {
    parts_[count_++] = {kind, begin, size, exchanges, masks_};
    masks_ += exchanges;
  }

  template <class L, Step step, class Value>
  static void run_part(const Part& part, Value* columns, typename L::Mask* masks) {
    Value* first = columns + static_cast<int64_t>(part.begin) * L::count;
    masks += part.first_mask;
    switch (part.kind) {
      case Part::sort:
        return run_up_to_32<L, Kind::sort, step>(part.size, first, masks);
      case Part::clean:
        return run_up_to_32<L, Kind::clean, step>(part.size, first, masks);
      case Part::mirror_and_clean:
        switch (part.size) {
          case 8:
            return pkpo::cpu::mirror_and_clean<L, 8, step>(first, masks);
          case 16:
            return pkpo::cpu::mirror_and_clean<L, 16, step>(first, masks);
          case 24:
            return pkpo::cpu::mirror_and_clean<L, 24, step>(first, masks);
          default:
            return pkpo::cpu::mirror_and_clean<L, 32, step>(first, masks);
        }
      case Part::mirror: {
        // Column i with column size - 1 - i. The first ones have no partner where columns are missing at the end.
        const int64_t skipped = part.size / 2 - part.exchanges, last = part.size - 1 - 2 * skipped;
        return run_layer<L, step>(first + skipped * L::count, part.exchanges, masks,
                                  [=](int64_t i) { return last - i; });
      }
      case Part::half: {
        const int64_t distance = part.size / 2;
        return run_layer<L, step>(first, part.exchanges, masks, [=](int64_t i) { return i + distance; });
      }
    }
  }

  int columns_ = 0, count_ = 0, masks_ = 0;
  Part parts_[kLargest * 13 / 32];  // 2,048 columns have 737, 1,024 have 305, 512 have 121
};

}  // namespace
}  // namespace pkpo::cpu
