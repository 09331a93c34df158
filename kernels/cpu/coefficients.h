// The numbers that depend on (n, k, baseline) alone: how much each gap of the sorted rewards counts.
//
//     y[p] = top x[n-1] + sum_{q <= p} up[q] d[q] - sum_{q > p} down[q] d[q],      d[q] = x[q] - x[q-1],  q = 1..n-1
//
// serves every baseline, and max_at_k at p = 0; kernels/README.md has the table and its derivation. No up or down is
// negative, so that neither sum cancels. All of them are simple factors times the weights
//
//     w[q] = C(q, k-1) / C(n, k)
//
// which are formed from the top, w[n-1] = k/n, by w[q] = w[q+1] (q+2-k) / (q+1). The product carries its rounding
// errors along (a compensated product: Graillat, Accurate floating-point product and exponentiation, 2009), so that
// every w is as good as rounded once, after a million steps too, and it is rescaled by powers of two on its way, so
// that this holds down to the smallest normal number. Cost: n steps of about 2 ns, once per (n, k) while it stays in
// the thread's cache.
#pragma once

#include <cstdint>

#include "types.h"

namespace pkpo::cpu {

// k as it is used in a group with n samples present; 0 where the group has no answer but zeros (no sample, or a single
// one that loo has nothing to compare with).
inline int64_t clamp_k(int64_t k, int64_t n, Form form) {
  const int64_t largest = form == Form::loo ? n - 1 : n;
  return k < largest ? k : largest;
}

// A table that somebody else owns.
struct Coefficients {
  double top_ = 0;                                // counts x[n-1]
  const double *up_ = nullptr, *down_ = nullptr;  // [n], entry 0 not to be read; none where all are zero
  const double* w_ = nullptr;                     // [n]

  bool has_top() const { return top_ != 0; }
  bool has_up() const { return up_ != nullptr; }
  bool has_down() const { return down_ != nullptr; }
  double top() const { return top_; }
  double up(int64_t q) const { return up_[q]; }
  double down(int64_t q) const { return down_[q]; }
  double w(int64_t q) const { return w_[q]; }
};

// A thread's tables: the last 512 shapes of up to 8,192 samples, more or less, in up to 4 MiB, and the last one beyond.
class CoefficientCache {
 public:
  // n >= 1, 1 <= k <= n, for loo k <= n - 1. Valid until the next call.
  const Coefficients& get(int64_t n, int64_t k, Form form) {
    if (n != n_ || k != k_ || form != form_) find(n, k, form);
    return last_;
  }

  // Gives back a table too large to be kept between calls.
  void trim();

  CoefficientCache();
  ~CoefficientCache();
  CoefficientCache(const CoefficientCache&) = delete;

  static CoefficientCache& of_this_thread();

 private:
  struct Tables;
  void find(int64_t n, int64_t k, Form form);

  int64_t n_ = 0, k_ = 0;
  Form form_ = Form::none;
  Coefficients last_;
  Tables* tables_;
};

}  // namespace pkpo::cpu
