// One group alone, for groups too large to lie side by side with others and for rewards that are infinite or so large
// that their differences may be. Value is float or double.
#pragma once

#include <cstdint>

#include "coefficients.h"

namespace pkpo::cpu {

// A reward of this magnitude or more is not looked after by the vector kernels.
template <class Value>
constexpr Value kTooLarge = 0;
template <>
inline constexpr float kTooLarge<float> = __builtin_inff();
template <>
inline constexpr double kTooLarge<double> = 1e300;

// Samples lie one after another. compensated: whether sums of float64 values are (scan.h). k >= 1 is clamped to the
// number present; NaN is absent. `out` may be `rewards`.
template <class Value>
struct Group {
  static void transform(const Value* rewards, int64_t size, int64_t k, Form form, bool compensated, Value* out);

  // out[j]: for ks(j), j < count
  static void max_at_k(const Value* rewards, int64_t size, const int64_t* ks, int64_t count, bool compensated,
                       Value* out);

  static void transform_backward(const Value* grad, const Value* rewards, int64_t size, int64_t k, Form form,
                                 Value* out);

  static void max_at_k_backward(Value grad, const Value* rewards, int64_t size, int64_t k, Value* out);
};

extern template struct Group<float>;
extern template struct Group<double>;

}  // namespace pkpo::cpu
