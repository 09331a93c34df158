#include "cuda/launches.h"

namespace pkpo::cuda {

cudaError_t run_small(const Call& call, Stream stream) {
  return by_kind(call, [&]<class V, Op op, bool usual>() { return run_small_of<V, op, usual>(call, stream); });
}

}  // namespace pkpo::cuda
