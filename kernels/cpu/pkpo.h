// The CPU kernels' whole interface: plain pointers in, plain pointers out. No torch, no Python, no allocation visible
// to the caller, no threads: a caller splits [0, groups.count) as it likes and may run the pieces in parallel. What is
// computed, and why in this form, is in kernels/README.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "types.h"

namespace pkpo {

// A read-only vector of int32 or int64 in the caller's memory; stride 0 repeats one number for every group.
struct Indices {
  const void* data = nullptr;
  bool is_int64 = true;
  int64_t stride = 1;

  int64_t operator[](int64_t i) const {
    return is_int64 ? static_cast<const int64_t*>(data)[i * stride] : static_cast<const int32_t*>(data)[i * stride];
  }

  // Calls body(at) with at(i) for operator[], its type and, where they lie one after another, its stride known.
  template <class Body>
  auto with_type(Body body) const {
    const int64_t* wide = static_cast<const int64_t*>(data);
    const int32_t* narrow = static_cast<const int32_t*>(data);
    if (stride != 1) return body([this](int64_t i) { return (*this)[i]; });
    return is_int64 ? body([wide](int64_t i) { return wide[i]; })
                    : body([narrow](int64_t i) { return int64_t{narrow[i]}; });
  }
};

// A batch of reward groups that lie one after another in memory: either every group has `width` samples, or group g has
// the samples offsets[g] .. offsets[g+1]-1. Group g is weighed for the best of k[g] samples.
struct Groups {
  int64_t count = 0;
  int64_t width = 0;
  Indices offsets;  // no data: all groups have `width` samples
  Indices k;

  int64_t begin(int64_t g) const { return offsets.data ? offsets[g] : g * width; }
  int64_t size(int64_t g) const { return offsets.data ? offsets[g + 1] - offsets[g] : width; }
};

// An array of samples, or of one value a group, in the caller's memory. Without leading sizes its elements lie `stride`
// apart in the order of the batch; with them, group g is the g-th (last index fastest) of an array of that shape and
// those strides, its samples `stride` apart. All strides are in elements and may be 0 (where read) or negative.
struct Array {
  void* data = nullptr;
  int64_t stride = 1;
  int leading = 0;
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;

  // Do the elements lie one after another, in the order of the batch?
  bool is_in_order() const { return leading == 0 && stride == 1; }

  // The element at `index` in the order of the batch, which belongs to group g and is the group's first.
  template <class T>
  T* at(int64_t g, int64_t index) const {
    if (leading == 0) return static_cast<T*>(data) + index * stride;
    int64_t offset = 0;
    for (int d = leading; d-- > 0; g /= sizes[d]) offset += g % sizes[d] * strides[d];
    return static_cast<T*>(data) + offset;
  }
};

namespace cpu {

// Each function does the groups [first, last). Sizes, offsets and k >= 1 are the caller's duty; k is clamped here to
// the number of samples that are present (not NaN), for Baseline::loo to one less.

// out, one value a sample: the transformed rewards; 0 where the reward is NaN.
void transform(const Groups& groups, Baseline baseline, DType dtype, const Array& rewards, const Array& out,
               int64_t first, int64_t last);

// out, one value a sample: sum_j grad[j] d transform(rewards)[j] / d rewards[i]; floating types only, grad of the
// rewards' type.
void transform_backward(const Groups& groups, Baseline baseline, DType dtype, const Array& grad, const Array& rewards,
                        const Array& out, int64_t first, int64_t last);

// out, one value a group: the mean over all k-subsets of their largest reward; NaN for a group with no sample.
void max_at_k(const Groups& groups, DType dtype, const Array& rewards, const Array& out, int64_t first, int64_t last);

// out, `count` values a group, one after another: max_at_k for every k of a list, from one sort. groups.k is not used.
void max_at_k_curve(const Groups& groups, const Indices& ks, int64_t count, DType dtype, const Array& rewards,
                    const Array& out, int64_t first, int64_t last);

// out, one value a sample: grad[g] d max_at_k(rewards)[g] / d rewards[i], g the group of i.
void max_at_k_backward(const Groups& groups, DType dtype, const Array& grad, const Array& rewards, const Array& out,
                       int64_t first, int64_t last);

// The instruction set in use, of those that the machine has, best first: by itself the best, or the one that the
// environment variable PKPO_CPU_ISA names when the first function is called. set_isa throws std::invalid_argument for
// a name that is not available; "" is the best. Every instruction set gives the same bits.
std::string isa();
void set_isa(const std::string& name);
std::vector<std::string> available_isas();

}  // namespace cpu
}  // namespace pkpo
