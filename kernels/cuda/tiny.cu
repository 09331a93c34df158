#include <algorithm>

#include "cuda/launches.h"
#include "cuda/tiny.cuh"
#include "cuda/tiny_gradient.cuh"

namespace pkpo::cuda {
namespace {

template <int N>
cudaError_t launch_tiny(const Call& call, Stream stream) {
  const int64_t blocks = (call.batch.count - 1) / (Rows<N>::kRows * kTinyBlock) + 1;
  if (call.op == Op::backward) return launch<tiny_gradients<N>>(blocks, kTinyBlock, 0, stream, call);
  return is_usual(call) ? launch<tiny_groups<N, true>>(blocks, kTinyBlock, 0, stream, call)
                        : launch<tiny_groups<N, false>>(blocks, kTinyBlock, 0, stream, call);
}

// Do rows of so many bytes each lie as they are read and written at once?
bool is_aligned(const void* rows, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(rows) % std::min<int64_t>(bytes, 16) == 0;
}

}  // namespace

bool is_tiny(const Call& call) {
  const Batch& batch = call.batch;
  const bool is_gradient = call.op == Op::backward && call.form != Form::max_at_k;
  const bool is_short = batch.dtype == DType::float16 || batch.dtype == DType::bfloat16;
  const int64_t width = batch.width, bytes = int64_t{1} << log_bytes_of(batch.dtype);
  return (call.op == Op::transform || is_gradient) && !is_wide(batch.dtype) &&
         (width == 2 || width == 4 || width == 8) && is_aligned(batch.rewards, width * bytes) &&
         is_aligned(call.out, width * (is_short ? 2 : 4)) && (!is_gradient || is_aligned(call.grad, width * bytes));
}

cudaError_t run_tiny(const Call& call, Stream stream) {
  return call.batch.width == 2   ? launch_tiny<2>(call, stream)
         : call.batch.width == 4 ? launch_tiny<4>(call, stream)
                                 : launch_tiny<8>(call, stream);
}

}  // namespace pkpo::cuda
