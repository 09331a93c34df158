// The CUDA kernels' whole interface: plain pointers in, plain pointers out, a stream. No torch, no allocation, no wait
// for the device. What is computed, and why in this form, is in kernels/README.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "types.h"

namespace pkpo::cuda {

// int32 or int64 in device memory; stride 0 repeats one number for every group.
struct Indices {
  const void* data = nullptr;
  bool is_int64 = true;
  int64_t stride = 1;
};

// A batch of reward groups that lie one after another in device memory: either every group has `width` samples, or
// group g has the samples offsets[g] .. offsets[g+1]-1 of the `samples` that there are (cut to that range, whatever
// offsets holds). Group g is weighed for the best of k[g] samples, clamped to 1 and to the samples present, for
// Form::loo to one less.
struct Batch {
  int64_t count = 0, width = 0, samples = 0;
  Indices offsets;  // no data: all groups have `width` samples
  Indices k;        // no data: k_value for all
  int64_t k_value = 1;
  DType dtype = DType::float32;
  const void* rewards = nullptr;
};

enum class Op { transform, max_at_k, backward };

// What an op writes: a value a sample (0 where the reward is NaN), for max_at_k a value a group, `stride` elements
// apart. With Op::backward: grad has the rewards' type and one value a sample, with Form::max_at_k one value a group.
struct Call {
  Batch batch;
  Op op = Op::transform;
  Form form = Form::loo_1;
  const void* grad = nullptr;
  void* out = nullptr;
  int64_t stride = 1;
};

// Bytes of device memory that `call` needs beside its output: 0 unless a group may have more samples than a block of
// the current device takes.
size_t workspace_bytes(const Call& call);

// Enqueues the kernels on `stream` of the current device; `workspace` has workspace_bytes(call), null where these are
// 0. Gives an error's text, or null.
const char* run(const Call& call, void* workspace, void* stream);

// Null where this library has code that the current device runs; else why not.
const char* why_unusable();

}  // namespace pkpo::cuda
