#include "cuda/large.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {

cudaError_t run_large(const Call& call, uint32_t smallest, void* workspace, Stream stream) {
  if (is_wide(call.batch.dtype)) return large_groups<double, false>(call, smallest, workspace, stream);
  return is_usual(call) ? large_groups<float, true>(call, smallest, workspace, stream)
                        : large_groups<float, false>(call, smallest, workspace, stream);
}

size_t large_workspace(const Call& call, uint32_t smallest) {
  Workspace<double> wide;
  Workspace<float> narrow;
  return is_wide(call.batch.dtype) ? lay_out(call, smallest, nullptr, wide) : lay_out(call, smallest, nullptr, narrow);
}

}  // namespace pkpo::cuda
