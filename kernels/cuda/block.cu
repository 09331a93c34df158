#include "cuda/block.cuh"
#include "cuda/launches.h"

namespace pkpo::cuda {
namespace {

// Calls use<kernel, its threads, its shared memory>() for the one that has room for so many samples.
template <class Use>
cudaError_t by_room(const Call& call, int64_t room, Use use) {
  return by_kind(call, [&]<class V, Op op, bool usual>() {
    const auto use_of = [&]<int L, int I>() {
      return use.template operator()<block_groups<V, L, I, op, usual>, L, BlockMemory<V, L, I, op>::all>();
    };
    if constexpr (sizeof(V) == 4 && op != Op::backward) {
      if (room <= 1024) return use_of.template operator()<64, 16>();
      if (room <= 2048) return use_of.template operator()<128, 16>();
      if (room <= 4096) return use_of.template operator()<256, 16>();
      return use_of.template operator()<512, 16>();
    } else {
      if (room <= 512) return use_of.template operator()<64, 8>();
      if (room <= 1024) return use_of.template operator()<128, 8>();
      if (room <= 2048) return use_of.template operator()<256, 8>();
      return use_of.template operator()<512, 8>();
    }
  });
}

}  // namespace

cudaError_t run_block(const Call& call, int64_t room, uint32_t smallest, Stream stream) {
  return by_room(call, room, [&]<auto kernel, int L, size_t shared>() {
    return launch<kernel>(call.batch.count, L, shared, stream, call, smallest);
  });
}

cudaError_t fit_in_blocks(const Call& call, int64_t room, int64_t groups, bool* fit) {
  return by_room(call, room,
                 [&]<auto kernel, int L, size_t shared>() { return fits_at_once<kernel>(groups, L, shared, fit); });
}

}  // namespace pkpo::cuda
