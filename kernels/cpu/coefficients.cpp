#include "coefficients.h"

#include <array>
#include <cmath>
#include <vector>

namespace pkpo::cpu {
namespace {

// w[0..n-1]. The weight is (product + error) 2^exponent; `rest` is what rounding took from the ratio, exactly.
inline __attribute__((always_inline)) void multiply_weights(int64_t n, int64_t k, double* w) {
  double product = static_cast<double>(k) / static_cast<double>(n);
  double error = __builtin_fma(-product, static_cast<double>(n), static_cast<double>(k)) / static_cast<double>(n);
  int exponent = 0;
  int64_t q = n - 1;
  for (;; --q) {
    const double scaled = product + error;
    w[q] = exponent == 0 ? scaled : std::ldexp(scaled, exponent);
    if (q < k || w[q] == 0) break;  // w[k-2] and below are 0, and weights only fall
    const double numerator = static_cast<double>(q + 1 - k), denominator = static_cast<double>(q);
    const double inverse = 1 / denominator, ratio = numerator * inverse;
    const double rest = __builtin_fma(-ratio, denominator, numerator) * inverse;
    const double next = product * ratio;
    error = error * ratio + (__builtin_fma(product, ratio, -next) + product * rest);
    product = next;
    if (product < 0x1p-300) {
      product *= 0x1p600;
      error *= 0x1p600;
      exponent -= 600;
    }
  }
  for (--q; q >= 0; --q) w[q] = 0;
}

#if defined(__x86_64__) && !defined(__FMA__)
// Without the instruction each fused multiplication is a call, of the same result.
__attribute__((target("fma"))) void multiply_weights_fused(int64_t n, int64_t k, double* w) {
  multiply_weights(n, k, w);
}
void set_weights(int64_t n, int64_t k, double* w) {
  static const bool fused = __builtin_cpu_supports("fma");
  fused ? multiply_weights_fused(n, k, w) : multiply_weights(n, k, w);
}
#else
void set_weights(int64_t n, int64_t k, double* w) { multiply_weights(n, k, w); }
#endif

struct Table {
  int64_t n = 0, k = 0;
  Form form = Form::none;
  Coefficients view;
  std::vector<double> memory;

  // So many numbers it takes.
  static size_t size_of(int64_t n, int64_t k, Form form) {
    const int64_t vectors = form == Form::loo || (form == Form::loo_1 && k == 1) ? 3 : form == Form::max_at_k ? 2 : 1;
    return static_cast<size_t>(vectors * n + 1);
  }

  void set(int64_t new_n, int64_t new_k, Form new_form) {
    n = 0;                                              // no table, should memory run out
    memory.assign(size_of(new_n, new_k, new_form), 0);  // not resize(), which copies what was, and takes more
    double *w = memory.data() + 1, *second = w + new_n, *third = second + new_n;
    set_weights(new_n, new_k, w);
    const double N = static_cast<double>(new_n), K = static_cast<double>(new_k);
    view = {};
    view.w_ = w;
    switch (new_form) {
      case Form::none:
        view.top_ = K / N;
        view.down_ = w - 1;
        break;
      case Form::loo_1:
        if (new_k > 1) {
          view.up_ = w;
          break;
        }
        for (int64_t q = 1; q < new_n; ++q) second[q] = static_cast<double>(q) / (N * (N - 1));
        for (int64_t q = 1; q < new_n; ++q) third[q] = static_cast<double>(new_n - q) / (N * (N - 1));
        view.up_ = second;
        view.down_ = third;
        break;
      case Form::loo: {
        view.top_ = -K / (N * (N - 1));
        const double scale = 1 / ((N - 1) * (N - K));
        for (int64_t q = 1; q < new_n; ++q) {
          const double Q = static_cast<double>(q);
          second[q] = w[q - 1] * (Q * N * scale);
          third[q] = w[q - 1] * ((N * (N - 1 - Q) + K) * scale);
        }
        view.up_ = second;
        view.down_ = third;
        break;
      }
      case Form::max_at_k:
        view.top_ = 1;
        for (int64_t q = 1; q < new_n; ++q) second[q] = w[q - 1] * (static_cast<double>(q) / K);
        view.down_ = second;
        break;
    }
    n = new_n;
    k = new_k;
    form = new_form;
  }
};

constexpr int64_t kLargestCached = 8192, kLargestKept = int64_t{1} << 16;
constexpr int kPlaceBits = 9;
constexpr size_t kMostNumbers = (size_t{4} << 20) / sizeof(double);  // in 4 MiB, of the cached

}  // namespace

struct CoefficientCache::Tables {
  std::array<Table, size_t{1} << kPlaceBits> small;  // a shape has one place
  Table large;
  size_t numbers = 0;  // that the small ones have memory for
};

CoefficientCache::CoefficientCache() : tables_(new Tables) {}
CoefficientCache::~CoefficientCache() { delete tables_; }

CoefficientCache& CoefficientCache::of_this_thread() {
  thread_local CoefficientCache cache;
  return cache;
}

void CoefficientCache::find(int64_t n, int64_t k, Form form) {
  const uint64_t hash = (static_cast<uint64_t>(n) * 0x9e3779b97f4a7c15u) ^
                        (static_cast<uint64_t>(k) * 0xff51afd7ed558ccdu) ^ (static_cast<uint64_t>(form) << 60);
  const bool is_small = n <= kLargestCached;
  Table& table = is_small ? tables_->small[hash >> (64 - kPlaceBits)] : tables_->large;
  n_ = 0;  // no table, should memory run out
  if (table.n != n || table.k != k || table.form != form) {
    if (is_small && tables_->numbers + Table::size_of(n, k, form) > kMostNumbers) {
      for (Table& each : tables_->small) each = {};
      tables_->numbers = 0;
    }
    const size_t before = table.memory.capacity();
    table.set(n, k, form);
    if (is_small) tables_->numbers += table.memory.capacity() - before;
  }
  n_ = n;
  k_ = k;
  form_ = form;
  last_ = table.view;
}

void CoefficientCache::trim() {
  if (tables_->large.n <= kLargestKept) return;
  tables_->large = {};
  n_ = 0;
}

}  // namespace pkpo::cpu
