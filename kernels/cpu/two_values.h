// Groups in which every reward is one of two values, as 0/1 rewards are: counted, not sorted. With c low ones there is
// one gap, d[c]: the high get top + up[c] d, the low top - down[c] d, bit for bit what the scans give.
//
// Cost: rewards read twice (the second time from the cache), results written once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "coefficients.h"
#include "columns.h"
#include "lanes.h"

namespace pkpo::cpu {
namespace {

struct Outputs {
  double low, high;
};

// Of a group with both values, or one.
inline Outputs outputs_of_two_values(const Coefficients& c, int64_t lows, int64_t highs, double low, double high) {
  const double top = c.has_top() ? c.top() * (highs > 0 ? high : low) : 0;
  if (lows == 0 || highs == 0) return {top, top};
  return {c.has_down() ? top - c.down(lows) * (high - low) : top, c.has_up() ? top + c.up(lows) * (high - low) : top};
}

// Looks for the pair of values that a batch is made of.
template <class Value>
class TwoValues {
 public:
  // Does the block if all its rewards are one of two values, and none is absent; else nothing.
  bool transform(const Block<Value>& block, Form form) {
    if (failures_ == kPatience || block.size[0] < kSmallest) return false;
    if (!count(block) && !(find_pair(block) && count(block))) {
      ++failures_;
      return false;
    }
    failures_ = 0;
    for (int l = 0; l < block.count; ++l) {
      const int64_t n = block.size[l], k = clamp_k(block.k[l], n, form);
      Outputs y{0, 0};
      if (k >= 1) y = outputs_of_two_values(cache_.get(n, k, form), n - highs_[l], highs_[l], low_, high_);
      write(block.rewards[l], n, static_cast<Value>(y.low) + Value(0), static_cast<Value>(y.high) + Value(0),
            block.out[l]);
    }
    return true;
  }

  // Are there no more than two among these?
  static bool are_all(const Value* x, int64_t count) {
    const Value *end = x + count, *other = std::find_if(x, end, [&](Value v) { return v != *x; });
    return std::all_of(other, end, [&](Value v) { return v == *x || v == *other; });
  }

 private:
  using L = Lanes<Value>;
  using V = typename L::Vector;
  static constexpr int64_t kSmallest = 8;  // smaller groups are sorted in no time
  static constexpr int kPatience = 4;      // after so many blocks in a row with other values, stop looking

  bool count(const Block<Value>& block) {
    const V low = L::all(low_), high = L::all(high_);
    for (int l = 0; l < block.count; ++l) {
      const Value* x = block.rewards[l];
      const int64_t n = block.size[l];
      int64_t highs = 0;
      bool known = true;
      const auto look = [&](const V& v) {
        const auto is_high = L::equal(v, high);
        highs += L::popcount(is_high);
        known = L::every(L::either(is_high, L::equal(v, low)));
      };
      int64_t i = 0;
      for (; known && i + L::count <= n; i += L::count) look(L::load(x + i));
      if (known && i < n) look(L::load_first(x + i, n - i, low));
      if (!known) return false;
      highs_[l] = highs;
    }
    return true;
  }

  // The smallest and the largest of the first group that has two.
  bool find_pair(const Block<Value>& block) {
    const Value *x = block.rewards[0], *end = x + std::min<int64_t>(block.size[0], 64);
    const auto [low, high] = std::minmax_element(x, end);
    const bool usable = std::fabs(*low) < kTooLarge<Value> && std::fabs(*high) < kTooLarge<Value> && *low < *high &&
                        (*low != low_ || *high != high_);
    if (usable) {
      low_ = *low;
      high_ = *high;
    }
    return usable;
  }

  void write(const Value* x, int64_t n, Value low, Value high, Value* out) const {
    const V is = L::all(high_), lows = L::all(low), highs = L::all(high);
    int64_t i = 0;
    for (; i + L::count <= n; i += L::count) L::store(out + i, L::select(L::equal(L::load(x + i), is), highs, lows));
    if (i < n) L::store_first(out + i, n - i, L::select(L::equal(L::load_first(x + i, n - i, is), is), highs, lows));
  }

  CoefficientCache& cache_ = CoefficientCache::of_this_thread();
  Value low_ = 0, high_ = 1;
  int failures_ = 0;
  int64_t highs_[L::count];
};

// A bool in memory: torch's and NumPy's may hold any byte, and only zero is false.
struct Boolean {
  uint8_t byte;

  explicit operator float() const { return byte != 0 ? 1.0f : 0.0f; }
};

class TrueAndFalse {
 public:
  explicit TrueAndFalse(Form form) : form_(form) {}

  void transform(const Boolean* x, int64_t n, int64_t k, float* out) {
    transform(x, n, out, [&](int64_t lows) { return outputs(n, lows, k); });
  }

  // Groups of the same size one after another.
  void transform(const Boolean* x, int64_t groups, int64_t n, int64_t k, float* out) {
    if (n > kSmall || groups < n) {
      for (int64_t g = 0; g < groups; ++g) transform(x + g * n, n, k, out + g * n);
      return;
    }
    // They have few different results.
    Pair pairs[kSmall + 1];
    for (int64_t lows = 0; lows <= n; ++lows) pairs[lows] = outputs(n, lows, k);
    if (n > L::count) {
      for (int64_t g = 0; g < groups; ++g) {
        transform(x + g * n, n, out + g * n, [&](int64_t lows) { return pairs[lows]; });
      }
      return;
    }
    for (int64_t g = 0; g < groups; ++g) {
      const uint8_t* bytes = bytes_of(x + g * n);
      const auto high = n == L::count ? L::nonzero(bytes) : L::nonzero_first(bytes, n);
      const Pair& pair = pairs[n - L::popcount(high)];
      const typename L::Vector y = L::select(high, L::all(pair.high), L::all(pair.low));
      n == L::count ? L::store(out + g * n, y) : L::store_first(out + g * n, n, y);
    }
  }

 private:
  using L = Lanes<float>;
  static constexpr int64_t kSmall = 64;
  struct Pair {
    float low, high;
  };

  static const uint8_t* bytes_of(const Boolean* x) { return reinterpret_cast<const uint8_t*>(x); }

  template <class Outputs>
  static void transform(const Boolean* x, int64_t n, float* out, Outputs outputs) {
    const uint8_t* bytes = bytes_of(x);
    const int64_t whole = n - n % L::count;
    int64_t highs = 0;
    for (int64_t i = 0; i < whole; i += L::count) highs += L::popcount(L::nonzero(bytes + i));
    if (whole < n) highs += L::popcount(L::nonzero_first(bytes + whole, n - whole));
    const Pair pair = outputs(n - highs);
    const typename L::Vector low = L::all(pair.low), high = L::all(pair.high);
    for (int64_t i = 0; i < whole; i += L::count) L::store(out + i, L::select(L::nonzero(bytes + i), high, low));
    if (whole < n) {
      L::store_first(out + whole, n - whole, L::select(L::nonzero_first(bytes + whole, n - whole), high, low));
    }
  }

  Pair outputs(int64_t n, int64_t lows, int64_t k) {
    k = clamp_k(k, n, form_);
    if (k < 1) return {0, 0};
    const Outputs y = outputs_of_two_values(cache_.get(n, k, form_), lows, n - lows, 0, 1);
    return {static_cast<float>(y.low) + 0.0f, static_cast<float>(y.high) + 0.0f};
  }

  CoefficientCache& cache_ = CoefficientCache::of_this_thread();
  const Form form_;
};

}  // namespace
}  // namespace pkpo::cpu
