#include "cuda/launches.h"
#include "cuda/two_turns.cuh"

namespace pkpo::cuda {
namespace {

constexpr int kThreads = 512;

// Calls use<the kernel, its shared memory>() for what `call` asks.
template <class Use>
auto by_memory(const Call& call, Use use) {
  return by_kind(call, [&]<class V, Op op, bool usual>() {
    constexpr int I = sizeof(V) == 4 && op != Op::backward ? 16 : 8;
    return use.template operator()<two_turn_groups<V, kThreads, I, op, usual>, TwoTurns<V, kThreads, I, op>::all>();
  });
}

}  // namespace

cudaError_t fit_in_two_turns(const Call& call, bool* fit) {
  constexpr size_t kStatic = 8 * 1024;  // shared memory that the kernels have besides, and the device keeps
  return by_memory(call, [&]<auto kernel, size_t shared>() {
    size_t most = 0;
    const cudaError_t error = shared_memory_of_a_block(&most);
    *fit = shared + kStatic <= most;
    return error;
  });
}

cudaError_t run_two_turns(const Call& call, Stream stream) {
  return by_memory(call, [&]<auto kernel, size_t shared>() {
    return launch<kernel>(call.batch.count, kThreads, shared, stream, call);
  });
}

}  // namespace pkpo::cuda
