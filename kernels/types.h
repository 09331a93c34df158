// The words that every compiled backend shares.
#pragma once

namespace pkpo {

enum class Baseline { none, loo, loo_1 };

// What gap coefficients are asked for (kernels/README.md has their table): one form a baseline, and max_at_k.
enum class Form { none, loo, loo_1, max_at_k };

inline Form form_of(Baseline baseline) {
  return baseline == Baseline::none ? Form::none : baseline == Baseline::loo ? Form::loo : Form::loo_1;
}

// Element types of rewards. Floating types come out as they went in; bool and integers come out as float32.
enum class DType { float64, float32, float16, bfloat16, boolean, uint8, int8, int16, int32, int64 };

// Whether rewards of this type are compared and weighed as float64; float32 holds every value of the others.
constexpr bool is_wide(DType dtype) {
  return dtype == DType::float64 || dtype == DType::int32 || dtype == DType::int64;
}

}  // namespace pkpo
