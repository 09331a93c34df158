// Rows of 2 to 16 samples, of float32 up to 32, that lie one after another, weighed for one k, as most calls have them:
// a register's width of rows at a time goes from memory to memory, the number of their samples known to the compiler,
// so that nothing is looked up and columns stay in registers between the steps. The bits are those of columns.h, which
// is left the rows with absent or very large rewards.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "adjacent_rows.h"
#include "coefficients.h"
#include "group.h"
#include "lanes.h"
#include "network.h"
#include "scan.h"

namespace pkpo::cpu {
namespace {

template <class Value>
class SmallRows {
 public:
  using L = Lanes<Value>;
  static constexpr int kLanes = L::count, kSmallest = 2;
  // A third of the time that the kernels take to compile goes into these: as far as it shows.
  static constexpr int kLargest = kChecked ? 8 : sizeof(Value) == 4 && kVectorBytes >= 32 ? 32 : 16;

  // kLanes rows of n samples from `rewards` to `out`. Does nothing and says so if one of them is absent or too large.
  using Transform = bool (*)(const Coefficients& c, const Value* rewards, Value* out);
  static Transform transform_of(int64_t n) {
    static constexpr auto all = []<int... i>(std::integer_sequence<int, i...>) {
      return std::array{transform<kSmallest + i>...};
    }(std::make_integer_sequence<int, kLargest - kSmallest + 1>());
    return all[static_cast<size_t>(n - kSmallest)];
  }

 private:
  using V = typename L::Vector;
  using Mask = typename L::Mask;
  using D = typename Wide<Value>::Type;

  template <int n>
  static bool transform(const Coefficients& c, const Value* rewards, Value* out) {
    using N = Network<Kind::sort, n>;
    V x[n];
    AdjacentRows<Value, n>::load(rewards, x);
    typename L::BitVector magnitude{};
    unrolled<n>([&]<int q>() { magnitude = L::larger(magnitude, L::magnitude(x[q])); });
    if (!L::every(L::less(as<V>(magnitude), L::all(kTooLarge<Value>)))) return false;
    Mask masks[N::size];
    run_exchanges<L, N, Step::record>(x, masks);
    D partial[n];
    if constexpr (n <= 16) {
      const auto value = [&](int64_t q) __attribute__((always_inline)) { return Wide<Value>::of(x[q]); };
      const auto put = [&](int64_t q, const D& y) __attribute__((always_inline)) {
        x[q] = Wide<Value>::rounded(y) + Value(0);  // no zero is negative
      };
      const auto put_nonnegative = [&](int64_t q, const D& y)
                                       __attribute__((always_inline)) { x[q] = Wide<Value>::rounded(y); };
      scan<sizeof(Value) == 8>(c, Known<n>(), value, partial, put, put_nonnegative);
    } else {  // in a loop, through memory: in registers it is no faster, and compiles longer
      alignas(64) Value columns[n * kLanes];
      unrolled<n>([&]<int q>() { L::store(columns + q * kLanes, x[q]); });
      const auto value = [&](int64_t q) { return Wide<Value>::load(columns + q * kLanes); };
      const auto put = [&](int64_t q, const D& y) { Wide<Value>::store(columns + q * kLanes, y); };
      const auto put_nonnegative = [&](int64_t q, const D& y) {
        Wide<Value>::store_nonnegative(columns + q * kLanes, y);
      };
      scan<sizeof(Value) == 8>(c, int64_t{n}, value, partial, put, put_nonnegative);
      unrolled<n>([&]<int q>() { x[q] = L::load(columns + q * kLanes); });
    }
    run_exchanges<L, N, Step::revert>(x, masks);
    AdjacentRows<Value, n>::store(x, out);
    return true;
  }
};

}  // namespace
}  // namespace pkpo::cpu
