// Sort, gaps, one weighted scan each way, and every sample gets the value at its rank, one sample after another.
//
// Cost of a group: three or four passes over its keys (six or eight for float64) and one or two over the sorted ones,
// about a nanosecond a sample each; 16 bytes of scratch memory a sample (32 for float64), 8 more for sums in both
// directions, 16 more for a gradient.

#include "group.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "scan.h"
#include "scratch.h"
#include "sort.h"

namespace pkpo::cpu {
namespace {

template <class Value>
class Sorted {
 public:
  static constexpr bool kWide = std::is_same_v<Value, double>;
  using Entry = std::conditional_t<kWide, Entry64, Entry32>;

  // Of the samples that are present.
  Sorted(const Value* rewards, int64_t size, Scratch& scratch) : n_(size) {
    Entry *entries = scratch.take<Entry>(size), *spare = scratch.take<Entry>(size);
    entries_ = sorted(rewards, size, entries, spare);
    while (n_ > 0 && entries_[n_ - 1].absent()) --n_;
  }

  int64_t n() const { return n_; }
  double value(int64_t q) const { return entries_[q].value(); }
  int64_t position(int64_t q) const { return entries_[q].position(); }
  bool in_range() const {
    return std::max(std::fabs(value(0)), std::fabs(value(n_ - 1))) < static_cast<double>(kTooLarge<Value>);
  }

 private:
  const Entry* entries_;
  int64_t n_;
};

// Where a reward is infinite or very large. An infinite reward acts as the limit of ever larger finite ones: y is
// linear in the sorted values, so they are split into x = infinite(x) M + finite(x), each part is scanned, and y is
// infinite where M counts. The finite part is scanned at half size, so that no difference overflows.
template <class Value, class Put>
void scan_out_of_range(const Coefficients& c, const Sorted<Value>& x, Scratch& scratch, Put put) {
  const int64_t n = x.n();
  double *partial = scratch.take<double>(n), *finite = scratch.take<double>(n), *infinite = scratch.take<double>(n);
  const auto finite_part = [&](int64_t q) { return std::isinf(x.value(q)) ? 0.0 : 0.5 * x.value(q); };
  const auto sign = [&](int64_t q) { return std::isinf(x.value(q)) ? std::copysign(1.0, x.value(q)) : 0.0; };
  const auto put_finite = [&](int64_t p, double y) { finite[p] = y; };
  const auto put_infinite = [&](int64_t p, double y) { infinite[p] = y; };
  scan<Sorted<Value>::kWide>(c, n, finite_part, partial, put_finite, put_finite);
  scan<Sorted<Value>::kWide>(c, n, sign, partial, put_infinite, put_infinite);
  // Without a +M at the top a result has one term of M at most, and is zero only if that is; with one, terms can
  // cancel, and what rounding leaves of them is not.
  const bool cancels = c.has_down() && sign(n - 1) > 0;
  const double negligible = cancels ? 1e-12 * std::max(std::fabs(c.top()), c.w(n - 1)) : 0;
  for (int64_t p = 0; p < n; ++p) {
    const bool counts = std::fabs(infinite[p]) > negligible;
    put(p, counts ? std::copysign(std::numeric_limits<double>::infinity(), infinite[p]) : 2 * finite[p]);
  }
}

template <class Value>
Value rounded(double value) {
  return static_cast<Value>(value) + Value(0);  // + 0: no zero is negative
}

template <class Value>
void set_absent(const Value* rewards, int64_t size, Value* out) {
  for (int64_t i = 0; i < size; ++i) {
    if (rewards[i] != rewards[i]) out[i] = 0;
  }
}

}  // namespace

template <class Value>
void Group<Value>::transform(const Value* rewards, int64_t size, int64_t k, Form form, bool compensated, Value* out) {
  Scratch scratch;
  const Sorted<Value> x(rewards, size, scratch);
  k = clamp_k(k, x.n(), form);
  if (k < 1) return (void)std::fill(out, out + size, Value(0));
  if (x.n() < size) set_absent(rewards, size, out);
  const Coefficients& c = CoefficientCache::of_this_thread().get(x.n(), k, form);
  const auto put = [&](int64_t p, double y) { out[x.position(p)] = rounded<Value>(y); };
  if (!x.in_range()) return scan_out_of_range(c, x, scratch, put);
  double* partial = c.has_up() && c.has_down() ? scratch.take<double>(x.n()) : nullptr;
  const auto value = [&](int64_t q) { return x.value(q); };
  compensated ? scan<true>(c, x.n(), value, partial, put, put) : scan<false>(c, x.n(), value, partial, put, put);
}

template <class Value>
void Group<Value>::max_at_k(const Value* rewards, int64_t size, const int64_t* ks, int64_t count, bool compensated,
                            Value* out) {
  Scratch scratch;
  const Sorted<Value> x(rewards, size, scratch);
  for (int64_t j = 0; j < count; ++j) {
    if (x.n() == 0) {
      out[j] = std::numeric_limits<Value>::quiet_NaN();
      continue;
    }
    const Coefficients& c =
        CoefficientCache::of_this_thread().get(x.n(), clamp_k(ks[j], x.n(), Form::max_at_k), Form::max_at_k);
    if (x.in_range()) {
      const auto value = [&](int64_t q) { return x.value(q); };
      out[j] = rounded<Value>(compensated ? scan_to_first<true, double>(c, x.n(), value)
                                          : scan_to_first<false, double>(c, x.n(), value));
    } else {
      Scratch inner;
      scan_out_of_range(c, x, inner, [&](int64_t p, double y) {
        if (p == 0) out[j] = rounded<Value>(y);
      });
    }
  }
}

template <class Value>
void Group<Value>::transform_backward(const Value* grad, const Value* rewards, int64_t size, int64_t k, Form form,
                                      Value* out) {
  Scratch scratch;
  const Sorted<Value> x(rewards, size, scratch);
  const int64_t n = x.n();
  k = clamp_k(k, n, form);
  if (k < 1) return (void)std::fill(out, out + size, Value(0));
  double *gy = scratch.take<double>(n), *h = scratch.take<double>(n + 1);
  int64_t largest = 0;  // |gy| in bits: NaN counts as larger than infinity
  for (int64_t p = 0; p < n; ++p) {
    gy[p] = static_cast<double>(grad[x.position(p)]);
    largest = std::max(largest, std::bit_cast<int64_t>(std::fabs(gy[p])));
  }
  if (n < size) set_absent(rewards, size, out);
  const Coefficients& c = CoefficientCache::of_this_thread().get(n, k, form);
  const Cuts<double> cuts = cuts_for(std::bit_cast<double>(largest), n);
  const auto at = [&](int64_t p) { return gy[p]; };
  const bool one_cut = std::is_same_v<Value, float> && n <= kOneCut;
  const double total = one_cut ? scan_gradient<false>(c, n, cuts, at, h) : scan_gradient<true>(c, n, cuts, at, h);
  h[n] = c.has_top() ? -(c.top() * total) : 0.0;
  share_differences(
      n, [&](int64_t q) { return x.value(q); }, h,
      [&](int64_t q, double share) { out[x.position(q)] = rounded<Value>(share); });
}

template <class Value>
void Group<Value>::max_at_k_backward(Value grad, const Value* rewards, int64_t size, int64_t k, Value* out) {
  Scratch scratch;
  const Sorted<Value> x(rewards, size, scratch);
  const int64_t n = x.n();
  if (n < size) set_absent(rewards, size, out);
  if (n == 0) return;
  const Coefficients& c = CoefficientCache::of_this_thread().get(n, clamp_k(k, n, Form::max_at_k), Form::max_at_k);
  double* terms = scratch.take<double>(n);
  for (int64_t q = 0; q < n; ++q) terms[q] = static_cast<double>(grad) * c.w(q);  // max_at_k = sum_q w[q] x[q]
  share_sums(
      n, [&](int64_t q) { return x.value(q); }, terms,
      [&](int64_t q, double share) { out[x.position(q)] = rounded<Value>(share); });
}

template struct Group<float>;
template struct Group<double>;

}  // namespace pkpo::cpu
