// The numbers that depend on (n, k, baseline) alone: how much each gap of the sorted rewards counts.
//
//     y[p] = top x[n-1] + sum_{q <= p} up[q] d[q] - sum_{q > p} down[q] d[q],      d[q] = x[q] - x[q-1],  q = 1..n-1
//
// serves every baseline, and max_at_k at p = 0; kernels/README.md has the table and its derivation. No up or down is
// negative, so that neither sum cancels. All of them are simple factors times the weights
//
//     w[q] = C(q, k-1) / C(n, k)
//
// which are formed from the top, w[n-1] = k/n, by w[q] = w[q+1] (q+2-k) / (q+1). The product carries the sum of its
// relative rounding errors along (a compensated product), so that every w comes out within about 2 units in the last
// place after 65,536 steps, and it is rescaled by powers of two on its way, so that this holds down to the smallest
// normal number. Cost: n steps of about 5 ns, once per distinct (n, k) in a row.
#pragma once

#include <cmath>
#include <cstdint>

#include "pkpo.h"

namespace pkpo::cpu {

// The forms that gap coefficients are asked for: one a baseline, and max_at_k.
enum class Form { none, loo, loo_1, max_at_k };

struct Coefficients {
  double top = 0;  // counts x[n-1]
  bool has_up = false, has_down = false;
  double* up = nullptr;    // [n], entry 0 unused
  double* down = nullptr;  // [n], entry 0 unused
  double* w = nullptr;     // [n]

  // n >= 1 and 1 <= k <= n; k <= n - 1 for loo. Does nothing if the table is already the one asked for.
  void set(int64_t n, int64_t k, Form form) {
    if (n == n_ && k == k_) return;
    n_ = n;
    k_ = k;
    set_weights(n, k);
    const double N = static_cast<double>(n), K = static_cast<double>(k);
    switch (form) {
      case Form::none:
        top = K / N;
        has_down = true;
        for (int64_t q = 1; q < n; ++q) down[q] = w[q - 1];
        break;
      case Form::loo_1:
        top = 0;
        has_up = true;
        has_down = k == 1;
        if (k == 1) {
          for (int64_t q = 1; q < n; ++q) up[q] = static_cast<double>(q) / (N * (N - 1));
          for (int64_t q = 1; q < n; ++q) down[q] = static_cast<double>(n - q) / (N * (N - 1));
        } else {
          for (int64_t q = 1; q < n; ++q) up[q] = w[q];
        }
        break;
      case Form::loo: {
        top = -K / (N * (N - 1));
        has_up = has_down = true;
        const double scale = 1 / ((N - 1) * (N - K));
        for (int64_t q = 1; q < n; ++q) {
          const double Q = static_cast<double>(q);
          up[q] = w[q - 1] * (Q * N * scale);
          down[q] = w[q - 1] * ((N * (N - 1 - Q) + K) * scale);
        }
        break;
      }
      case Form::max_at_k:
        top = 1;
        has_down = true;
        for (int64_t q = 1; q < n; ++q) down[q] = w[q - 1] * (static_cast<double>(q) / K);
        break;
    }
  }

 private:
  int64_t n_ = -1, k_ = -1;

  void set_weights(int64_t n, int64_t k) {
    double product = static_cast<double>(k) / static_cast<double>(n);
    double error = std::fma(-product, static_cast<double>(n), static_cast<double>(k)) / static_cast<double>(k);
    int exponent = 0;  // the weight is product (1 + error) 2^exponent
    int64_t q = n - 1;
    for (;; --q) {
      const double scaled = product + product * error;
      w[q] = exponent == 0 ? scaled : std::ldexp(scaled, exponent);
      if (q < k || w[q] == 0) break;  // w[k-2] and below are 0, and weights only fall
      const double numerator = static_cast<double>(q + 1 - k), denominator = static_cast<double>(q);
      const double ratio = numerator / denominator;
      const double next = product * ratio;
      error += std::fma(product, ratio, -next) / next + std::fma(-ratio, denominator, numerator) / numerator;
      product = next;
      if (product < 0x1p-300) {
        product *= 0x1p600;
        exponent -= 600;
      }
    }
    for (--q; q >= 0; --q) w[q] = 0;
  }
};

}  // namespace pkpo::cpu
