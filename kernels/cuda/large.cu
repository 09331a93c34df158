#include "cuda/large.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {

cudaError_t run_large(const Call& call, uint32_t smallest, void* workspace, Stream stream) {
  return is_wide(call.batch.dtype) ? large_groups<double>(call, smallest, workspace, stream)
                                   : large_groups<float>(call, smallest, workspace, stream);
}

size_t large_workspace(const Call& call) {
  Workspace<double> wide;
  Workspace<float> narrow;
  return is_wide(call.batch.dtype) ? lay_out(call, nullptr, wide) : lay_out(call, nullptr, narrow);
}

}  // namespace pkpo::cuda
