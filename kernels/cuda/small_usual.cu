#include "cuda/small.cuh"

namespace pkpo::cuda {

template cudaError_t run_small_of<float, Op::transform, true>(const Call&, Stream);

}  // namespace pkpo::cuda
