// The launches of the kinds of kernel, compiled apart.
#pragma once

#include "cuda/device.cuh"

namespace pkpo::cuda {

// A thread has up to 16 samples where it need not hold more than a float32 for each, else 8.
inline bool is_light(const Call& call) { return !is_wide(call.batch.dtype) && call.op != Op::backward; }

// Calls launch<type of value, op, usual>() for what `call` asks.
template <class Launch>
cudaError_t by_kind(const Call& call, Launch launch) {
  const auto by_op = [&]<class V>() {
    switch (call.op) {
      case Op::transform:
        if constexpr (sizeof(V) == 4) {
          if (is_usual(call)) return launch.template operator()<V, Op::transform, true>();
        }
        return launch.template operator()<V, Op::transform, false>();
      case Op::max_at_k:
        return launch.template operator()<V, Op::max_at_k, false>();
      default:
        return launch.template operator()<V, Op::backward, false>();
    }
  };
  return is_wide(call.batch.dtype) ? by_op.template operator()<double>() : by_op.template operator()<float>();
}

// Groups of one size, up to 32 samples, of a batch that the device holds at once with a thread for each sample. Says
// whether it is one.
cudaError_t run_quick(const Call& call, Stream stream, bool* is_done);

// Groups of 2, 4 or 8 samples that a thread holds from memory to memory: transform and its gradient.
bool is_tiny(const Call& call);
cudaError_t run_tiny(const Call& call, Stream stream);

// Groups of one size, up to 256 samples, or 512 where a thread has 16.
cudaError_t run_small(const Call& call, Stream stream);
// The same of up to 1,024 samples, for usual calls: a warp each, 32 samples a thread.
cudaError_t run_small_largest(const Call& call, Stream stream);
// The same for a kind of call: in files of their own, compiled side by side.
template <class V, Op op, bool usual>
cudaError_t run_small_of(const Call& call, Stream stream);

// Groups that differ in size, of up to ragged_room() samples; larger ones are left alone. `counter` is set to 0, if it
// is not null.
cudaError_t run_ragged(const Call& call, uint32_t* counter, Stream stream);
int64_t ragged_room(const Call& call);

// Groups of `smallest` to `room` samples, room <= 4096, or 8192 where a thread has 16.
cudaError_t run_block(const Call& call, int64_t room, uint32_t smallest, Stream stream);
// Does the device hold blocks of that room for so many groups at once?
cudaError_t fit_in_blocks(const Call& call, int64_t room, int64_t groups, bool* fit);

// Groups of one size, up to twice as many samples as a block has room for: where the device has the shared memory.
cudaError_t fit_in_two_turns(const Call& call, bool* fit);
cudaError_t run_two_turns(const Call& call, Stream stream);

// Groups of `smallest` samples and more: in one launch where groups differ in size and have few samples in all, which
// says whether the device does that; in a launch for every pass. counter_at_once(): in the workspace, 0 before the one
// launch; null where there is none.
uint32_t* counter_at_once(const Call& call, uint32_t smallest, void* workspace);
cudaError_t run_large_at_once(const Call& call, uint32_t smallest, void* workspace, Stream stream, bool* is_done);
cudaError_t run_large(const Call& call, uint32_t smallest, void* workspace, Stream stream);
size_t large_workspace(const Call& call, uint32_t smallest);

}  // namespace pkpo::cuda
