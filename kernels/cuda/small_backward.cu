#include "cuda/small.cuh"

namespace pkpo::cuda {

template cudaError_t run_small_of<float, Op::backward, false>(const Call&, Stream);
template cudaError_t run_small_of<double, Op::backward, false>(const Call&, Stream);

}  // namespace pkpo::cuda
