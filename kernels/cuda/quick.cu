#include "cuda/launches.h"
#include "cuda/quick.cuh"

namespace pkpo::cuda {
namespace {

template <int L, bool usual>
cudaError_t launch_quick(const Call& call, Stream stream, bool* is_done) {
  constexpr int64_t groups = kQuickBlock / L;  // a block
  const int64_t blocks = (call.batch.count - 1) / groups + 1;
  const cudaError_t error = fits_at_once<quick_groups<L, usual>>(blocks, kQuickBlock, 0, is_done);
  if (error != cudaSuccess || !*is_done) return error;
  return launch<quick_groups<L, usual>>(blocks, kQuickBlock, 0, stream, call);
}

template <bool usual>
cudaError_t by_width(const Call& call, Stream stream, bool* is_done) {
  const int64_t width = call.batch.width;
  if (width <= 2) return launch_quick<2, usual>(call, stream, is_done);
  if (width <= 4) return launch_quick<4, usual>(call, stream, is_done);
  if (width <= 8) return launch_quick<8, usual>(call, stream, is_done);
  if (width <= 16) return launch_quick<16, usual>(call, stream, is_done);
  return launch_quick<32, usual>(call, stream, is_done);
}

}  // namespace

cudaError_t run_quick(const Call& call, Stream stream, bool* is_done) {
  *is_done = false;
  if (call.op != Op::transform || !is_light(call) || call.batch.width > kWarp) return cudaSuccess;
  return is_usual(call) ? by_width<true>(call, stream, is_done) : by_width<false>(call, stream, is_done);
}

}  // namespace pkpo::cuda
