// The two scans that everything is made of, over sorted values: rewards to results, incoming gradients to gradients. D
// is one float64, or a vector of them with a group in every lane; either way the operations of a group are the same
// ones in the same order, and so are its bits.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "lanes.h"

namespace pkpo::cpu {
namespace {

// A running sum; compensated (Knuth's TwoSum), its error does not grow with the number of terms.
template <class D, bool compensated>
class Sum {
 public:
  void add(const D& term) {
    if constexpr (compensated) {
      const D sum = sum_ + term, shadow = sum - sum_;
      lost_ = lost_ + ((sum_ - (sum - shadow)) + (term - shadow));
      sum_ = sum;
    } else {
      sum_ = sum_ + term;
    }
  }
  D value() const {
    if constexpr (compensated) return sum_ + lost_;
    return sum_;
  }

 private:
  D sum_ = constant<D>(0), lost_ = constant<D>(0);
};

// Calls body(q) for the ranks 1 .. n - 1; where n is known to the compiler, one after another, without a loop.
template <class Body>
inline __attribute__((always_inline)) void upwards(int64_t n, Body body) {
  for (int64_t q = 1; q < n; ++q) body(q);
}
template <class Body>
inline __attribute__((always_inline)) void downwards(int64_t n, Body body) {
  for (int64_t q = n - 1; q >= 1; --q) body(q);
}
template <int n>
using Known = std::integral_constant<int, n>;
template <int n, class Body>
inline __attribute__((always_inline)) void upwards(Known<n>, Body body) {
  unrolled<n - 1>([&]<int i>() __attribute__((always_inline)) { body(i + 1); });
}
template <int n, class Body>
inline __attribute__((always_inline)) void downwards(Known<n>, Body body) {
  unrolled<n - 1>([&]<int i>() __attribute__((always_inline)) { body(n - 1 - i); });
}

// put(p, y[p]) for every rank p of the n sorted values value(0) <= ... <= value(n-1), finite and their differences too;
// put_nonnegative where no y can be below zero. See coefficients.h for y. C gives the coefficients, as numbers or as a
// number a lane. `partial` holds n values while there are sums in both directions.
template <bool compensated, class D, class C, class N, class Value, class Put, class PutNonnegative>
inline __attribute__((always_inline)) void scan(const C& c, N n, Value value, D* partial, Put put,
                                                PutNonnegative put_nonnegative) {
  // Calls each(q, up[1] d[1] + ... + up[q] d[q]).
  const auto sum_up = [&](auto each) __attribute__((always_inline)) {
    Sum<D, compensated> below;
    D previous = value(0);
    each(0, below.value());
    upwards(n, [&](int64_t q) __attribute__((always_inline)) {
      const D here = value(q);
      below.add(c.up(q) * (here - previous));
      each(q, below.value());
      previous = here;
    });
  };
  // Calls each(q, down[n-1] d[n-1] + ... + down[q+1] d[q+1]).
  const auto sum_down = [&](auto each) __attribute__((always_inline)) {
    Sum<D, compensated> above;
    D next = value(n - 1);
    each(n - 1, above.value());
    downwards(n, [&](int64_t q) __attribute__((always_inline)) {
      const D here = value(q - 1);
      above.add(c.down(q) * (next - here));
      each(q - 1, above.value());
      next = here;
    });
  };
  if (c.has_up() && !c.has_down() && !c.has_top()) return sum_up(put_nonnegative);

  D top = constant<D>(0);
  if (c.has_top()) top = c.top() * value(n - 1);
  if (c.has_up() && c.has_down()) {
    sum_down([&](int64_t p, const D& above) { partial[p] = top - above; });
    sum_up([&](int64_t p, const D& below) { put(p, partial[p] + below); });
  } else if (c.has_down()) {
    sum_down([&](int64_t p, const D& above) { put(p, top - above); });
  } else if (c.has_up()) {
    sum_up([&](int64_t p, const D& below) { put(p, top + below); });
  } else {
    for (int64_t p = 0; p < n; ++p) put(p, top);
  }
}

// y[0] alone, for max_at_k.
template <bool compensated, class D, class C, class Value>
inline __attribute__((always_inline)) D scan_to_first(const C& c, int64_t n, Value value) {
  Sum<D, compensated> above;
  const D top = c.top() * value(n - 1);
  D next = value(n - 1);
  for (int64_t q = n - 1; q >= 1; --q) {
    const D here = value(q - 1);
    above.add(c.down(q) * (next - here));
    next = here;
  }
  return top - above.value();
}

// Sums of incoming gradients must not depend on the order in which equal rewards come to stand, so that a group's bits
// are the same whichever way it was sorted. Every term is cut at a place below which so many bits are left that the
// sums of the pieces are exact, and what is below it once more (Demmel and Nguyen, Fast reproducible floating-point
// summation, 2013). Of n terms, what the second cut drops is at most 2^-98 n^3 of the largest. One cut is enough for
// float32 up to kOneCut terms: it drops 2^-50 n^2.
constexpr int64_t kOneCut = 8192;

template <class D>
struct Cuts {
  D first, second;  // (term + cut) - cut is the piece above the place; 0 for no cut
};

// For n terms of at most this magnitude. Terms so large that a cut would overflow, or not finite, are summed as they
// are.
inline Cuts<double> cuts_for(double largest, int64_t n) {
  const auto power_of_two = [](double x) {  // rounded down; 0 for a subnormal number, whose sums are exact anyway
    return std::bit_cast<double>(std::bit_cast<int64_t>(x) & 0x7ff0000000000000);
  };
  const double terms = static_cast<double>(n), first = power_of_two(largest * terms) * 4;
  if (!(first < 0x1p1020)) return {0, 0};
  return {1.5 * first, 1.5 * (first * 0x1p-52 * (power_of_two(terms) * 8))};
}

template <class D, bool two_cuts>
class CutSum {
 public:
  explicit CutSum(const Cuts<D>& cuts) : cuts_(cuts) {}

  void add(const D& term) {
    const D piece = (term + cuts_.first) - cuts_.first;
    high_ = high_ + piece;
    if constexpr (two_cuts) low_ = low_ + (((term - piece) + cuts_.second) - cuts_.second);
  }
  D value() const {
    if constexpr (!two_cuts) return high_;
    return high_ + where_equal(low_, low_, low_, constant<D>(0));  // inf - inf where terms are infinite
  }

 private:
  Cuts<D> cuts_;
  D high_ = constant<D>(0), low_ = constant<D>(0);
};

// y depends on gap q through up[q] at the ranks p >= q and through -down[q] at those below, so that
// h[q] = up[q] sum_{p >= q} gy[p] - down[q] sum_{p < q} gy[p] is the gradient of gap q, and gx[q] = h[q] - h[q+1], with
// top sum(gy) for the top rank. Writes h[0] = 0 and h[1 .. n-1]; gives sum(gy).
template <bool two_cuts, class D, class C, class Grad>
inline __attribute__((always_inline)) D scan_gradient(const C& c, int64_t n, const Cuts<D>& cuts, Grad grad, D* h) {
  h[0] = constant<D>(0);
  if (c.has_up()) {
    CutSum<D, two_cuts> above(cuts);
    for (int64_t q = n - 1; q >= 1; --q) {
      above.add(grad(q));
      h[q] = c.up(q) * above.value();
    }
  }
  CutSum<D, two_cuts> below(cuts);
  for (int64_t q = 1; q < n; ++q) {
    below.add(grad(q - 1));
    if (!c.has_up()) h[q] = constant<D>(0);
    if (c.has_down()) h[q] = h[q] - c.down(q) * below.value();
  }
  below.add(grad(n - 1));
  return below.value();
}

// put(q, what stands at the last rank of equal value).
template <class D, class Value, class Put>
inline __attribute__((always_inline)) void take_from_last(int64_t n, Value value, const D* at, Put put) {
  D share = at[n - 1], here = value(n - 1);
  put(n - 1, share);
  for (int64_t q = n - 2; q >= 0; --q) {
    const D next = value(q);
    share = where_equal(next, here, share, at[q]);
    here = next;
    put(q, share);
  }
}

// Among equal rewards every split is a subgradient; here they share equally. put(q, the mean of its ties): of
// gx[q] = h[q] - h[q+1], whose sum over the ranks a..b is h[a] - h[b+1]. `h` (n + 1 numbers) is overwritten.
template <class D, class Value, class Put>
inline __attribute__((always_inline)) void share_differences(int64_t n, Value value, D* h, Put put) {
  const D one = constant<D>(1);
  D begin = h[0], count = one, here = value(0);
  for (int64_t q = 0; q < n; ++q) {
    if (q > 0) {
      const D next = value(q);
      begin = where_equal(next, here, begin, h[q]);
      count = where_equal(next, here, count + one, one);
      here = next;
    }
    h[q] = (begin - h[q + 1]) / count;
  }
  take_from_last(n, value, h, put);
}

// The same of terms that are summed as they are.
template <class D, class Value, class Put>
inline __attribute__((always_inline)) void share_sums(int64_t n, Value value, D* terms, Put put) {
  const D zero = constant<D>(0), one = constant<D>(1);
  D total = terms[0], count = one, here = value(0);
  for (int64_t q = 1; q < n; ++q) {
    const D next = value(q);
    terms[q - 1] = total / count;
    total = where_equal(next, here, total, zero) + terms[q];
    count = where_equal(next, here, count + one, one);
    here = next;
  }
  terms[n - 1] = total / count;
  take_from_last(n, value, terms, put);
}

}  // namespace
}  // namespace pkpo::cpu
