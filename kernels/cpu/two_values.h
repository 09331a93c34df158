// Groups in which every reward is one of two values, as 0/1 rewards are: counted, not sorted. With c low ones there is
// one gap, d[c]: the high get top + up[c] d, the low top - down[c] d, bit for bit what the scans give.
//
// Cost: rewards read twice (the second time from the cache), results written once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

inline int64_t count_true(const Boolean* x, int64_t n) {
  int64_t count = 0, i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t bytes;
    std::memcpy(&bytes, x + i, 8);
    constexpr uint64_t low = 0x7f7f7f7f7f7f7f7f;
    count += __builtin_popcountll((((bytes & low) + low) | bytes) & ~low);
  }
  for (; i < n; ++i) count += x[i].byte != 0;
  return count;
}

template <int lanes>
inline void write_chunk(const Boolean* x, float low, float high, float* out) {
  using Wide = typename VectorOf<int32_t, lanes>::type;
  using Floats = typename VectorOf<float, lanes>::type;
  const Wide wide = __builtin_convertvector(load_vector<typename VectorOf<uint8_t, lanes>::type>(x), Wide);
  store_vector(out, wide != 0 ? high - Floats{} : low - Floats{});
}

inline void transform_true_and_false(CoefficientCache& cache, const Boolean* x, int64_t n, int64_t k, Form form,
                                     float* out) {
  const int64_t highs = count_true(x, n);
  k = clamp_k(k, n, form);
  Outputs y{0, 0};
  if (k >= 1) y = outputs_of_two_values(cache.get(n, k, form), n - highs, highs, 0, 1);
  const float low = static_cast<float>(y.low) + 0.0f, high = static_cast<float>(y.high) + 0.0f;
  int64_t i = 0;
  if constexpr (Lanes<float>::count > 8) {
    for (; i + 16 <= n; i += 16) write_chunk<16>(x + i, low, high, out + i);
  }
  for (; i + 8 <= n; i += 8) write_chunk<8>(x + i, low, high, out + i);
  for (; i < n; ++i) out[i] = x[i].byte ? high : low;
}

}  // namespace
}  // namespace pkpo::cpu
