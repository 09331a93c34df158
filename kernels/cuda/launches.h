// The launches of the three kinds of kernel, compiled apart.
#pragma once

#include "cuda/device.cuh"

namespace pkpo::cuda {

// Groups of up to `room` samples, a power of two from 4 to 256; larger ones are left alone.
cudaError_t run_small(const Call& call, int64_t room, Stream stream);

// Groups of `smallest` to `room` samples, room <= 4096.
cudaError_t run_block(const Call& call, int64_t room, uint32_t smallest, Stream stream);

// Groups of more than 4096 samples.
cudaError_t run_large(const Call& call, void* workspace, Stream stream);
size_t large_workspace(const Call& call);

}  // namespace pkpo::cuda
