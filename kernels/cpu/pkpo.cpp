// One group after another: sort, gaps, one weighted scan each way, and every sample gets the value at its rank. All
// arithmetic is in float64, sums of float64 rewards are compensated. A group of at most two values, as 0/1 rewards are,
// is not sorted but counted.
//
// Cost of a group: n^2 / 4 vector comparisons up to n = 64, beyond four passes over the keys (eight for float64); a few
// multiplications and additions a sample; 2 bytes moved per byte of rewards. The coefficients of a shape are formed
// once and kept while the shape stays the same.

#include "pkpo.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "coefficients.h"
#include "half.h"
#include "sort.h"

namespace pkpo::cpu {
namespace {

// A bool in memory: torch's and NumPy's may hold any byte, and only zero is false.
struct Boolean {
  uint8_t byte;

  explicit operator float() const { return byte != 0 ? 1.0f : 0.0f; }
};

// What the element types need: the type in which rewards are compared, the type of the result, how sums are kept.
template <class In>
struct Element {
  static constexpr bool wide = std::is_same_v<In, double> || std::is_integral_v<In>;  // compared as float64
  static constexpr bool compensated = std::is_same_v<In, double>;
  using Value = std::conditional_t<wide, double, float>;
  using Entry = std::conditional_t<wide, Entry64, Entry32>;
  using Out = std::conditional_t<std::is_integral_v<In> || std::is_same_v<In, Boolean>, float, In>;
};

template <class T>
double load(T value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<double>(value);
  } else {
    return static_cast<double>(static_cast<float>(value));
  }
}

// Half types are rounded from the float32 result, not from the float64 one. Adding 0 makes a zero positive.
template <class T>
T store(double value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<T>(value) + T(0);
  } else {
    return T(static_cast<float>(value) + 0.0f);
  }
}

// A running sum; compensated (Knuth's TwoSum), its error does not grow with the number of terms.
template <bool compensated>
class Sum {
 public:
  void add(double term) {
    if constexpr (compensated) {
      const double sum = sum_ + term, shadow = sum - sum_;
      lost_ += (sum_ - (sum - shadow)) + (term - shadow);
      sum_ = sum;
    } else {
      sum_ += term;
    }
  }
  double value() const {
    if constexpr (compensated) return std::isfinite(lost_) ? sum_ + lost_ : sum_;
    return sum_;
  }

 private:
  double sum_ = 0, lost_ = 0;
};

// The scratch memory of one worker: made once for its largest group, in one allocation.
template <class Entry>
struct Scratch {
  explicit Scratch(int64_t largest_group)
      : memory(new std::byte[static_cast<size_t>(largest_group + 1) * (2 * sizeof(Entry) + 5 * sizeof(double))]) {
    const int64_t stride = largest_group + 1;
    entries = reinterpret_cast<Entry*>(memory.get());
    spare = entries + stride;
    double* next = reinterpret_cast<double*>(spare + stride);
    coefficients.w = next;
    coefficients.up = next += stride;
    coefficients.down = next += stride;
    first = next += stride;
    second = next += stride;
  }

  std::unique_ptr<std::byte[]> memory;
  Entry *entries, *spare;
  Coefficients coefficients;
  double *first, *second;  // two vectors over the ranks of a group
};

// Calls body(g, the offset of the group's first sample, its size) for every group g of [first, last).
template <class Body>
void for_each_group(const Groups& groups, int64_t first, int64_t last, Body body) {
  for (int64_t g = first; g < last; ++g) body(g, groups.begin(g), groups.size(g));
}

int64_t largest_group(const Groups& groups, int64_t first, int64_t last) {
  if (!groups.offsets.data) return groups.width;
  int64_t largest = 0;
  for (int64_t g = first; g < last; ++g) largest = std::max(largest, groups.size(g));
  return largest;
}

// k as it is used in a group with n samples present; 0 where the group has no answer but zeros (no sample, or a single
// one that loo has nothing to compare with).
int64_t clamp_k(int64_t k, int64_t n, Form form) { return std::min(k, form == Form::loo ? n - 1 : n); }

// y[p] for every rank p of the n sorted values value(0) <= ... <= value(n-1); see coefficients.h.
template <bool compensated, class Value>
void scan(const Coefficients& c, int64_t n, Value value, double* y) {
  const double top = c.top == 0 ? 0 : c.top * value(n - 1);
  if (c.has_down) {
    Sum<compensated> above;
    double next = value(n - 1);
    y[n - 1] = top;
    for (int64_t q = n - 1; q >= 1; --q) {
      const double here = value(q - 1);
      above.add(c.down[q] * (next - here));
      y[q - 1] = top - above.value();
      next = here;
    }
  } else {
    std::fill(y, y + n, top);
  }
  if (c.has_up) {
    Sum<compensated> below;
    double previous = value(0);
    for (int64_t q = 1; q < n; ++q) {
      const double here = value(q);
      below.add(c.up[q] * (here - previous));
      y[q] += below.value();
      previous = here;
    }
  }
}

// The same where the difference of two values is not a finite number. An infinite reward acts as the limit of ever
// larger finite ones: y is linear in the sorted values, so they are split into x = infinite(x) M + finite(x), each part
// is scanned, and y is infinite where M counts. Finite values whose difference overflows are scanned at half size.
template <bool compensated, class Value>
void scan_unbounded(const Coefficients& c, int64_t n, Value value, double* y, double* infinite) {
  const auto finite_part = [&](int64_t q) { return std::isinf(value(q)) ? 0.0 : 0.5 * value(q); };
  const auto infinite_part = [&](int64_t q) { return std::isinf(value(q)) ? std::copysign(1.0, value(q)) : 0.0; };
  scan<compensated>(c, n, finite_part, y);
  scan<compensated>(c, n, infinite_part, infinite);
  // A sum of terms of one sign is zero only if every term is; where terms can cancel, what rounding leaves is not.
  const double negligible = c.has_down ? 1e-12 : 0;
  for (int64_t p = 0; p < n; ++p) {
    y[p] = std::fabs(infinite[p]) > negligible ? std::copysign(std::numeric_limits<double>::infinity(), infinite[p])
                                               : 2 * y[p];
  }
}

// Sorted values to y, whichever of the two ways they need.
template <bool compensated, class Entry>
void scan_group(Scratch<Entry>& scratch, int64_t n) {
  const auto value = [&](int64_t q) { return scratch.entries[q].value(); };
  if (std::isfinite(value(n - 1) - value(0))) {
    scan<compensated>(scratch.coefficients, n, value, scratch.first);
  } else {
    scan_unbounded<compensated>(scratch.coefficients, n, value, scratch.first, scratch.second);
  }
}

// Shares gx, given by rank, equally among equal rewards, and hands it to the samples.
template <class Out, class Entry>
void store_shared(const Entry* entries, int64_t n, const double* gx, Out* out, int64_t stride) {
  for (int64_t begin = 0, end; begin < n; begin = end) {
    double total = 0;
    for (end = begin; end < n && entries[end].value() == entries[begin].value(); ++end) total += gx[end];
    const Out share = store<Out>(total / static_cast<double>(end - begin));
    for (int64_t q = begin; q < end; ++q) out[entries[q].position() * stride] = share;
  }
}

Form form_of(Baseline baseline) {
  switch (baseline) {
    case Baseline::none:
      return Form::none;
    case Baseline::loo:
      return Form::loo;
    case Baseline::loo_1:
      break;
  }
  return Form::loo_1;
}

// A group in which every reward is `low` or `high`, as 0/1 rewards are, needs no sort: it has one gap.
struct TwoValues {
  bool found = false;
  int64_t n = 0, lows = 0;  // samples present; those of them that are low, 0 where all are equal
  double low = 0, high = 0;
};

template <class Value, class In>
TwoValues find_two_values(const In* rewards, int64_t stride, int64_t size) {
  TwoValues two;
  const auto at = [&](int64_t i) { return static_cast<Value>(rewards[i * stride]); };
  // The first present sample, and the first that differs from it; a third value among the next few settles most groups.
  int64_t i = 0;
  while (i < size && at(i) != at(i)) ++i;
  if (i == size) {
    two.found = true;
    return two;
  }
  const Value first = at(i);
  while (i < size && (at(i) == first || at(i) != at(i))) ++i;
  const Value second = i < size ? at(i) : first;
  if (!std::isfinite(static_cast<double>(first) - static_cast<double>(second))) return two;
  for (const int64_t end = std::min(i + 8, size); i < end; ++i) {
    if (at(i) != first && at(i) != second && at(i) == at(i)) return two;
  }
  const auto count = [&](auto counts) {
    int64_t counted = 0;
    if (stride == 1) {
      for (int64_t j = 0; j < size; ++j) counted += counts(static_cast<Value>(rewards[j]));
    } else {
      for (int64_t j = 0; j < size; ++j) counted += counts(at(j));
    }
    return counted;
  };
  const int64_t firsts = count([=](Value value) { return value == first; });
  const int64_t seconds = first == second ? 0 : count([=](Value value) { return value == second; });
  two.n = firsts + seconds;
  two.found = two.n == size || two.n + count([](Value value) { return value != value; }) == size;
  two.low = std::min(first, second);
  two.high = std::max(first, second);
  two.lows = seconds == 0 ? 0 : (first < second ? firsts : seconds);
  return two;
}

// Their y: [0] of the low rewards, [1] of the high ones. Bit for bit what scan() gives.
struct TwoOutputs {
  double y[2];

  TwoOutputs(const Coefficients& c, const TwoValues& two) {
    const double top = c.top == 0 ? 0 : c.top * two.high;
    const bool gap = two.lows > 0;
    y[0] = top - (gap && c.has_down ? c.down[two.lows] * (two.high - two.low) : 0);
    y[1] = top + (gap && c.has_up ? c.up[two.lows] * (two.high - two.low) : 0);
  }
};

template <class In>
struct Kernel {
  using E = Element<In>;
  using Out = typename E::Out;
  using Value = typename E::Value;
  using Workspace = Scratch<typename E::Entry>;

  static void fill(Out* out, int64_t stride, int64_t size, double value) {
    for (int64_t i = 0; i < size; ++i) out[i * stride] = store<Out>(value);
  }

  static void transform(const Groups& groups, Form form, const Array& rewards, const Array& out, int64_t first,
                        int64_t last) {
    Workspace scratch(largest_group(groups, first, last));
    Coefficients& c = scratch.coefficients;
    for_each_group(groups, first, last, [&](int64_t g, int64_t begin, int64_t size) {
      const In* x = rewards.at<const In>(g, begin);
      Out* y = out.at<Out>(g, begin);
      const TwoValues two = find_two_values<Value>(x, rewards.stride, size);
      const int64_t n =
          two.found ? two.n : sort_present<Value>(x, rewards.stride, size, scratch.entries, scratch.spare);
      const int64_t k = clamp_k(groups.k[g], n, form);
      if (k < 1) return fill(y, out.stride, size, 0);
      c.set(n, k, form);
      if (two.found) {
        const TwoOutputs outputs(c, two);
        const Out low = store<Out>(outputs.y[0]), high = store<Out>(outputs.y[1]), absent = store<Out>(0);
        if (n == size) {
          for (int64_t i = 0; i < size; ++i) {
            y[i * out.stride] = load(x[i * rewards.stride]) == two.high ? high : low;
          }
        } else {
          for (int64_t i = 0; i < size; ++i) {
            const double value = load(x[i * rewards.stride]);
            y[i * out.stride] = value == two.high ? high : value == two.low ? low : absent;
          }
        }
        return;
      }
      if (n < size) fill(y, out.stride, size, 0);
      scan_group<E::compensated>(scratch, n);
      for (int64_t p = 0; p < n; ++p) {
        y[scratch.entries[p].position() * out.stride] = store<Out>(scratch.first[p]);
      }
    });
  }

  static void max_at_k(const Groups& groups, const Array& rewards, const Array& out, int64_t first, int64_t last) {
    Workspace scratch(largest_group(groups, first, last));
    Coefficients& c = scratch.coefficients;
    for_each_group(groups, first, last, [&](int64_t g, int64_t begin, int64_t size) {
      const In* x = rewards.at<const In>(g, begin);
      const TwoValues two = find_two_values<Value>(x, rewards.stride, size);
      const int64_t n =
          two.found ? two.n : sort_present<Value>(x, rewards.stride, size, scratch.entries, scratch.spare);
      double value = std::numeric_limits<double>::quiet_NaN();
      if (n > 0) {
        c.set(n, clamp_k(groups.k[g], n, Form::max_at_k), Form::max_at_k);
        if (two.found) {
          value = two.lows > 0 ? TwoOutputs(c, two).y[0] : two.high;
        } else {
          scan_group<E::compensated>(scratch, n);
          value = scratch.first[0];
        }
      }
      *out.at<Out>(g, g) = store<Out>(value);
    });
  }

  // Each k has a table of its own, which lasts while the groups have the same number of samples.
  static void max_at_k_curve(const Groups& groups, const Indices& ks, int64_t count, const Array& rewards,
                             const Array& out, int64_t first, int64_t last) {
    const int64_t largest = largest_group(groups, first, last);
    Workspace scratch(largest);
    std::vector<Workspace> tables;
    for (int64_t j = 0; j < count; ++j) tables.emplace_back(largest);
    for_each_group(groups, first, last, [&](int64_t g, int64_t begin, int64_t size) {
      const int64_t n =
          sort_present<Value>(rewards.at<const In>(g, begin), rewards.stride, size, scratch.entries, scratch.spare);
      Out* y = out.at<Out>(g, g * count);
      for (int64_t j = 0; j < count; ++j) {
        double value = std::numeric_limits<double>::quiet_NaN();
        if (n > 0) {
          std::swap(scratch.coefficients, tables[j].coefficients);
          scratch.coefficients.set(n, clamp_k(ks[j], n, Form::max_at_k), Form::max_at_k);
          scan_group<E::compensated>(scratch, n);
          value = scratch.first[0];
          std::swap(scratch.coefficients, tables[j].coefficients);
        }
        y[j * out.stride] = store<Out>(value);
      }
    });
  }

  // y depends on gap q through up[q] at the ranks p >= q and through -down[q] at those below, so that
  // h[q] = up[q] sum_{p >= q} gy[p] - down[q] sum_{p < q} gy[p] is the gradient of gap q; gx[q] = h[q] - h[q+1].
  static void transform_backward(const Groups& groups, Form form, const Array& grad, const Array& rewards,
                                 const Array& out, int64_t first, int64_t last) {
    Workspace scratch(largest_group(groups, first, last));
    Coefficients& c = scratch.coefficients;
    for_each_group(groups, first, last, [&](int64_t g, int64_t begin, int64_t size) {
      const int64_t n =
          sort_present<Value>(rewards.at<const In>(g, begin), rewards.stride, size, scratch.entries, scratch.spare);
      const int64_t k = clamp_k(groups.k[g], n, form);
      const In* gy_by_position = grad.at<const In>(g, begin);
      Out* result = out.at<Out>(g, begin);
      if (n < size || k < 1) fill(result, out.stride, size, 0);
      if (k < 1) return;
      c.set(n, k, form);
      double *gx = scratch.first, *gy = scratch.second;
      Sum<E::compensated> total;
      for (int64_t p = 0; p < n; ++p) {
        gy[p] = load(gy_by_position[scratch.entries[p].position() * grad.stride]);
        total.add(gy[p]);
      }
      std::fill(gx, gx + n, 0.0);
      if (c.top != 0) gx[n - 1] = c.top * total.value();
      if (c.has_up) {
        Sum<E::compensated> above;
        for (int64_t q = n - 1; q >= 1; --q) {
          above.add(gy[q]);
          const double h = c.up[q] * above.value();
          gx[q] += h;
          gx[q - 1] -= h;
        }
      }
      if (c.has_down) {
        Sum<E::compensated> below;
        for (int64_t q = 1; q < n; ++q) {
          below.add(gy[q - 1]);
          const double h = c.down[q] * below.value();
          gx[q] -= h;
          gx[q - 1] += h;
        }
      }
      store_shared(scratch.entries, n, gx, result, out.stride);
    });
  }

  // max_at_k = sum_q w[q] x[q]
  static void max_at_k_backward(const Groups& groups, const Array& grad, const Array& rewards, const Array& out,
                                int64_t first, int64_t last) {
    Workspace scratch(largest_group(groups, first, last));
    Coefficients& c = scratch.coefficients;
    for_each_group(groups, first, last, [&](int64_t g, int64_t begin, int64_t size) {
      const int64_t n =
          sort_present<Value>(rewards.at<const In>(g, begin), rewards.stride, size, scratch.entries, scratch.spare);
      Out* result = out.at<Out>(g, begin);
      if (n < size) fill(result, out.stride, size, 0);
      if (n == 0) return;
      c.set(n, clamp_k(groups.k[g], n, Form::max_at_k), Form::max_at_k);
      const double gy = load(*grad.at<const In>(g, g));
      for (int64_t q = 0; q < n; ++q) scratch.first[q] = gy * c.w[q];
      store_shared(scratch.entries, n, scratch.first, result, out.stride);
    });
  }
};

// Calls body(Tag<In>) with the element type that dtype names.
template <class T>
struct Tag {
  using In = T;
};

template <class Body>
void with_floating(DType dtype, Body body) {
  switch (dtype) {
    case DType::float64:
      return body(Tag<double>{});
    case DType::float32:
      return body(Tag<float>{});
    case DType::float16:
      return body(Tag<Float16>{});
    case DType::bfloat16:
      return body(Tag<BFloat16>{});
    default:
      return;  // no gradient flows to bool and integers
  }
}

template <class Body>
void with_element(DType dtype, Body body) {
  switch (dtype) {
    case DType::boolean:
      return body(Tag<Boolean>{});
    case DType::uint8:
      return body(Tag<uint8_t>{});
    case DType::int8:
      return body(Tag<int8_t>{});
    case DType::int16:
      return body(Tag<int16_t>{});
    case DType::int32:
      return body(Tag<int32_t>{});
    case DType::int64:
      return body(Tag<int64_t>{});
    default:
      return with_floating(dtype, body);
  }
}

}  // namespace

void transform(const Groups& groups, Baseline baseline, DType dtype, const Array& rewards, const Array& out,
               int64_t first, int64_t last) {
  with_element(dtype, [&](auto tag) {
    Kernel<typename decltype(tag)::In>::transform(groups, form_of(baseline), rewards, out, first, last);
  });
}

void max_at_k(const Groups& groups, DType dtype, const Array& rewards, const Array& out, int64_t first, int64_t last) {
  with_element(dtype,
               [&](auto tag) { Kernel<typename decltype(tag)::In>::max_at_k(groups, rewards, out, first, last); });
}

void max_at_k_curve(const Groups& groups, const Indices& ks, int64_t count, DType dtype, const Array& rewards,
                    const Array& out, int64_t first, int64_t last) {
  with_element(dtype, [&](auto tag) {
    Kernel<typename decltype(tag)::In>::max_at_k_curve(groups, ks, count, rewards, out, first, last);
  });
}

void transform_backward(const Groups& groups, Baseline baseline, DType dtype, const Array& grad, const Array& rewards,
                        const Array& out, int64_t first, int64_t last) {
  with_floating(dtype, [&](auto tag) {
    Kernel<typename decltype(tag)::In>::transform_backward(groups, form_of(baseline), grad, rewards, out, first, last);
  });
}

void max_at_k_backward(const Groups& groups, DType dtype, const Array& grad, const Array& rewards, const Array& out,
                       int64_t first, int64_t last) {
  with_floating(dtype, [&](auto tag) {
    Kernel<typename decltype(tag)::In>::max_at_k_backward(groups, grad, rewards, out, first, last);
  });
}

}  // namespace pkpo::cpu
