// The schemas that pkpo_kernels/ops.py defines, each checked and handed to a backend, which has five functions:
//
//     transform(arguments, baseline)                      a value a sample
//     transform_backward(arguments, baseline, grad)       the same
//     max_at_k(arguments)                                 a value a group
//     max_at_k_backward(arguments, grad)                  a value a sample
//     max_at_k_curve(arguments, ks)                       a value a group and k
#pragma once

#include <torch/csrc/stable/library.h>

#include "arguments.h"

namespace pkpo {

inline constexpr const char* kTransform = "pkpo::transform";
inline constexpr const char* kTransformBackward = "pkpo::_transform_backward";
inline constexpr const char* kMaxAtK = "pkpo::max_at_k";
inline constexpr const char* kMaxAtKBackward = "pkpo::_max_at_k_backward";

template <class Backend>
struct Ops {
  static Tensor transform(const Tensor& rewards, int64_t k, StringHandle baseline) {
    const Baseline parsed = parse_baseline(kTransform, baseline);
    return Backend::transform(Arguments::dense(kTransform, rewards, k, parsed), parsed);
  }

  static Tensor transform_tensor_k(const Tensor& rewards, const Tensor& k, StringHandle baseline) {
    const Baseline parsed = parse_baseline(kTransform, baseline);
    return Backend::transform(Arguments::dense(kTransform, rewards, k), parsed);
  }

  static Tensor transform_grouped(const Tensor& rewards, const Tensor& offsets, const Tensor& k,
                                  StringHandle baseline) {
    const Baseline parsed = parse_baseline(kTransform, baseline);
    return Backend::transform(Arguments::grouped(kTransform, rewards, offsets, k), parsed);
  }

  static Tensor transform_backward(const Tensor& grad, const Tensor& rewards, int64_t k, StringHandle baseline) {
    const Baseline parsed = parse_baseline(kTransformBackward, baseline);
    return Backend::transform_backward(Arguments::dense(kTransformBackward, rewards, k, parsed), parsed, grad);
  }

  static Tensor transform_backward_tensor_k(const Tensor& grad, const Tensor& rewards, const Tensor& k,
                                            StringHandle baseline) {
    const Baseline parsed = parse_baseline(kTransformBackward, baseline);
    return Backend::transform_backward(Arguments::dense(kTransformBackward, rewards, k), parsed, grad);
  }

  static Tensor transform_backward_grouped(const Tensor& grad, const Tensor& rewards, const Tensor& offsets,
                                           const Tensor& k, StringHandle baseline) {
    const Baseline parsed = parse_baseline(kTransformBackward, baseline);
    return Backend::transform_backward(Arguments::grouped(kTransformBackward, rewards, offsets, k), parsed, grad);
  }

  static Tensor max_at_k(const Tensor& rewards, int64_t k) {
    return Backend::max_at_k(Arguments::dense(kMaxAtK, rewards, k, Baseline::none));
  }

  static Tensor max_at_k_tensor_k(const Tensor& rewards, const Tensor& k) {
    return Backend::max_at_k(Arguments::dense(kMaxAtK, rewards, k));
  }

  static Tensor max_at_k_grouped(const Tensor& rewards, const Tensor& offsets, const Tensor& k) {
    return Backend::max_at_k(Arguments::grouped(kMaxAtK, rewards, offsets, k));
  }

  static Tensor max_at_k_curve(const Tensor& rewards, const Sizes& ks) {
    return Backend::max_at_k_curve(Arguments::curve(kMaxAtK, rewards, ks), ks);
  }

  static Tensor max_at_k_curve_grouped(const Tensor& rewards, const Tensor& offsets, const Sizes& ks) {
    return Backend::max_at_k_curve(Arguments::curve_grouped(kMaxAtK, rewards, offsets, ks), ks);
  }

  static Tensor max_at_k_backward(const Tensor& grad, const Tensor& rewards, int64_t k) {
    return Backend::max_at_k_backward(Arguments::dense(kMaxAtKBackward, rewards, k, Baseline::none), grad);
  }

  static Tensor max_at_k_backward_tensor_k(const Tensor& grad, const Tensor& rewards, const Tensor& k) {
    return Backend::max_at_k_backward(Arguments::dense(kMaxAtKBackward, rewards, k), grad);
  }

  static Tensor max_at_k_backward_grouped(const Tensor& grad, const Tensor& rewards, const Tensor& offsets,
                                          const Tensor& k) {
    return Backend::max_at_k_backward(Arguments::grouped(kMaxAtKBackward, rewards, offsets, k), grad);
  }

  static void implement(torch::stable::detail::StableLibrary& library) {
    library.impl("transform", TORCH_BOX(&Ops::transform));
    library.impl("transform.tensor_k", TORCH_BOX(&Ops::transform_tensor_k));
    library.impl("transform.grouped", TORCH_BOX(&Ops::transform_grouped));
    library.impl("_transform_backward", TORCH_BOX(&Ops::transform_backward));
    library.impl("_transform_backward.tensor_k", TORCH_BOX(&Ops::transform_backward_tensor_k));
    library.impl("_transform_backward.grouped", TORCH_BOX(&Ops::transform_backward_grouped));
    library.impl("max_at_k", TORCH_BOX(&Ops::max_at_k));
    library.impl("max_at_k.tensor_k", TORCH_BOX(&Ops::max_at_k_tensor_k));
    library.impl("max_at_k.grouped", TORCH_BOX(&Ops::max_at_k_grouped));
    library.impl("max_at_k.curve", TORCH_BOX(&Ops::max_at_k_curve));
    library.impl("max_at_k.curve_grouped", TORCH_BOX(&Ops::max_at_k_curve_grouped));
    library.impl("_max_at_k_backward", TORCH_BOX(&Ops::max_at_k_backward));
    library.impl("_max_at_k_backward.tensor_k", TORCH_BOX(&Ops::max_at_k_backward_tensor_k));
    library.impl("_max_at_k_backward.grouped", TORCH_BOX(&Ops::max_at_k_backward_grouped));
  }
};

}  // namespace pkpo
