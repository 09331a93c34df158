// Rows of 2 to 16 samples that lie one after another, weighed for one k, as most calls have them: a register's width of
// rows at a time goes from memory to memory, the number of their samples known to the compiler, so that nothing is
// looked up and sorted columns stay in registers from the network to the scan and back. The bits are those of
// columns.h, which is left the rows with absent or very large rewards.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "coefficients.h"
#include "group.h"
#include "lanes.h"
#include "network.h"
#include "scan.h"
#include "transpose.h"

namespace pkpo::cpu {
namespace {

template <class Value>
class SmallRows {
 public:
  using L = Lanes<Value>;
  static constexpr int kLanes = L::count, kSmallest = 2;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int kLargest = 8;  // with a check at every access more would compile for minutes
#else
  static constexpr int kLargest = 16;
#endif

  // kLanes rows of n samples from `rewards` to `out`, which reads some samples more: readable(n) in all. Does nothing
  // and says so if one of them is absent or too large.
  using Transform = bool (*)(const Coefficients& c, const Value* rewards, Value* out);
  static Transform transform_of(int64_t n) {
    static constexpr auto all = []<int... i>(std::integer_sequence<int, i...>) {
      return std::array{transform<kSmallest + i>...};
    }(std::make_integer_sequence<int, kLargest - kSmallest + 1>());
    return all[static_cast<size_t>(n - kSmallest)];
  }
  static int64_t readable(int64_t n) { return (kLanes - 1) * n + std::max<int64_t>(n, square_size<Value>(n)); }

 private:
  using V = typename L::Vector;
  using Mask = typename L::Mask;
  using D = typename Wide<Value>::Type;

  template <int n>
  static bool transform(const Coefficients& c, const Value* rewards, Value* out) {
    using N = Network<Kind::sort, n>;
    V x[n];
    load<n>(rewards, x);
    typename L::BitVector magnitude{};
    unrolled<n>([&]<int q>() { magnitude = L::larger(magnitude, L::magnitude(x[q])); });
    if (!L::every(L::less(as<V>(magnitude), L::all(kTooLarge<Value>)))) return false;
    Mask masks[N::size];
    run_exchanges<L, N, Step::record>(x, masks);
    D partial[n];
    const auto value = [&](int64_t q) __attribute__((always_inline)) { return Wide<Value>::of(x[q]); };
    const auto put = [&](int64_t q, const D& y) __attribute__((always_inline)) {
      x[q] = Wide<Value>::rounded(y) + Value(0);  // no zero is negative
    };
    const auto put_nonnegative = [&](int64_t q, const D& y)
                                     __attribute__((always_inline)) { x[q] = Wide<Value>::rounded(y); };
    scan<sizeof(Value) == 8>(c, Known<n>(), value, partial, put, put_nonnegative);
    run_exchanges<L, N, Step::revert>(x, masks);
    store<n>(x, out);
    return true;
  }

  // Rows that fill a register, alone or side by side, are read and written as they lie: in squares of `kSize` vectors
  // that are transposed together. Side by side, a lane has another one of the rows than in columns.h.
  template <int n>
  struct Square {
    static constexpr int kSize = n < kLanes ? n : kLanes, kCount = n / kSize;
    static constexpr bool kFilled = n >= 16 / int{sizeof(Value)} && n % kSize == 0 && kLanes % kSize == 0;
    static constexpr int place(int i) { return i % kSize * (n < kLanes ? kLanes : n) + i / kSize * kSize; }

    static inline __attribute__((always_inline)) void transpose(V (&x)[n]) {
      unrolled<kCount>([&]<int s>() { transpose_squares<Value, kSize>(reinterpret_cast<V(&)[kSize]>(x[s * kSize])); });
    }
  };

  template <int n>
  static inline __attribute__((always_inline)) void load(const Value* rewards, V (&x)[n]) {
    if constexpr (Square<n>::kFilled) {
      unrolled<n>([&]<int i>() { x[i] = L::load(rewards + Square<n>::place(i)); });
      Square<n>::transpose(x);
    } else {
      alignas(64) Value columns[(n + kLanes) * kLanes];  // squares may reach behind the last
      rows_to_columns(Adjacent<const Value>{rewards, n}, n, columns);
      unrolled<n>([&]<int q>() { x[q] = L::load(columns + q * kLanes); });
    }
  }
  template <int n>
  static inline __attribute__((always_inline)) void store(V (&x)[n], Value* out) {
    if constexpr (Square<n>::kFilled) {
      Square<n>::transpose(x);
      unrolled<n>([&]<int i>() { L::store(out + Square<n>::place(i), x[i]); });
    } else {
      alignas(64) Value columns[(n + kLanes) * kLanes];
      unrolled<n>([&]<int q>() { L::store(columns + q * kLanes, x[q]); });
      columns_to_rows(columns, n, Adjacent<Value>{out, n}, kLanes, /*adjacent=*/true);
    }
  }
};

}  // namespace
}  // namespace pkpo::cpu
