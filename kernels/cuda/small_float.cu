#include "cuda/small.cuh"

namespace pkpo::cuda {

template cudaError_t run_small_of<float, Op::transform, false>(const Call&, Stream);
template cudaError_t run_small_of<float, Op::max_at_k, false>(const Call&, Stream);

}  // namespace pkpo::cuda
