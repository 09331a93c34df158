// Groups of up to 4,096 samples: one to a block, 8 samples a thread. One launch; a block goes on to further groups.
#pragma once

#include "cuda/group.cuh"

namespace pkpo::cuda {

// Shared memory of a block: what sorting and results need, then the weights, then the samples by rank, which wait there
// while registers are scarce. At most 85 KB, of the 99 that a block may have on the smallest GPUs.
template <class V, int L, Op op>
struct BlockMemory {
  using C = std::conditional_t<op == Op::backward, double, V>;
  static constexpr size_t shelf = Shelf<typename Entries<V>::Entry>::bytes(L * kItems);
  static constexpr size_t h = op == Op::backward ? sizeof(double) * (L * kItems + 1) : 0;
  static constexpr size_t work = ((shelf > h ? shelf : h) + 15) / 16 * 16;
  static constexpr size_t samples = work + sizeof(C) * L * kItems;
  static constexpr size_t all = samples + sizeof(uint16_t) * L * kItems;
  static_assert(all <= 85 * 1024);
};

// Samples begin .. begin + size - 1, sorted. `memory` is the block's, free again afterwards.
template <class V, int L>
__device__ inline void sort_in_block(const Team<L>& team, const Batch& batch, int64_t begin, uint32_t size,
                                     void* memory, typename Entries<V>::Entry (&e)[kItems]) {
  using E = Entries<V>;
  const uint32_t thread = computed_here(team.thread), warp = thread / kWarp;
  const Team<kWarp> of_warp;
  V* values = static_cast<V*>(memory);
  load_chunk(batch.rewards, batch.dtype, begin, static_cast<int>(size), values, team.thread, L);
  __syncthreads();
  // A warp's samples: number i * kWarp + lane of it is sample i * L + thread.
  const auto sample_at = [&](uint32_t number) { return number / kWarp * L + warp * kWarp + number % kWarp; };
  const auto value_at = [&](uint32_t number) {
    const uint32_t sample = sample_at(number);
    return sample < size ? values[sample] : not_a_number<V>();
  };
  V x[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) x[i] = value_at(i * kWarp + thread % kWarp);
  bool sorted = false;
  if constexpr (sizeof(V) == 4) {
    uint32_t number[kItems];
    V value[kItems];
    sorted = sort_by_short_keys<kItems, kWarp>(of_warp, x, value_at, number, value);
    if (sorted) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) e[i] = E::make(value[i], sample_at(number[i]));
    }
  }
  if (!sorted) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) e[i] = E::make(x[i], i * L + thread);
    sort_in_warp<kWarp>(e, static_cast<int>(thread % kWarp));
  }
  merge_warps<L>(e, team.thread, memory);
}

template <class V, int L>
__device__ inline void unpack(const Team<L>& team, const typename Entries<V>::Entry (&e)[kItems],
                              Sorted<kItems, V>& group) {
  using E = Entries<V>;
  uint32_t present = 0;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    group.x[i] = E::value(e[i]);
    group.sample[i] = E::sample(e[i]);
    present += !E::is_absent(e[i]);
  }
  group.rank0 = computed_here(team.thread * kItems);
  group.n = team.parts(present, 0u, Add()).all;
}

// Groups of `smallest` to L * 8 samples; others are left alone.
template <class V, int L, Op op>
__global__ void __launch_bounds__(L, 512 / L) block_groups(Call call, uint32_t smallest) {
  using C = std::conditional_t<op == Op::backward, double, V>;
  void* memory = dynamic_shared();
  V* values = static_cast<V*>(memory);
  const Batch& batch = call.batch;
  const Team<L> team;
  C* w = reinterpret_cast<C*>(dynamic_shared() + BlockMemory<V, L, op>::work);
  uint16_t* samples = reinterpret_cast<uint16_t*>(dynamic_shared() + BlockMemory<V, L, op>::samples);
  // Out of the registers' way: the group size that w is for, where groups are alike, and what a warp needs to go on.
  __shared__ uint32_t n_of_w;
  n_of_w = 0xffffffffu;
  __shared__ struct Waiting {
    int64_t base;
    uint32_t bits;
  } waiting_of_warps[L / kWarp];
  Waiting& waiting = waiting_of_warps[threadIdx.x / kWarp];

  const auto weigh_group = [&](int64_t g) {
    const Extent extent = extent_of(batch, g);
    typename Entries<V>::Entry e[kItems];
    sort_in_block<V>(team, batch, extent.begin, extent.size, memory, e);
    Sorted<kItems, V> group;
    unpack<V>(team, e, group);
    const Shape shape{group.n, clamp_k(k_of(batch, g), group.n, call.form), call.form};
    if (group.n != n_of_w) {  // all have asked before one of them writes: forming the weights, they wait for each other
      set_weights<kItems>(team, shape, group.rank0, 1.0, w);
      if (!batch.offsets.data && (!batch.k.data || batch.k.stride == 0)) n_of_w = group.n;
    }
    const Coefficients<C> c(shape, w);

    const uint32_t mine = computed_here(team.thread * kItems);
#pragma unroll
    for (int i = 0; i < kItems; ++i) samples[mine + i] = static_cast<uint16_t>(group.sample[i]);
    weigh_for<op>(call, team, c, extent.begin, g, static_cast<double*>(memory), group);

    if constexpr (op == Op::max_at_k) {
      if (team.thread == 0) {
        store_element(call.out, batch.dtype, g * call.stride, group.n > 0 ? group.x[0] : not_a_number<V>());
      }
    } else {
      team.sync();
#pragma unroll
      for (int i = 0; i < kItems; ++i) group.sample[i] = samples[mine + i];
      put_results(group, shape.k > 0, extent.size, values);
      team.sync();
      store_chunk(values, call.out, batch.dtype, extent.begin, static_cast<int>(extent.size), team.thread, L);
    }
    team.sync();
  };

  // Where groups differ in size, every warp looks at the same 32 of them.
  for (int64_t base = blockIdx.x; base < batch.count; base += int64_t{batch.offsets.data ? kWarp : 1} * gridDim.x) {
    uint32_t bits = 1;
    if (batch.offsets.data) {
      const int64_t g = base + int64_t{computed_here(Team<L>::lane())} * gridDim.x;
      const uint32_t size = g < batch.count ? extent_of(batch, g).size : 0;
      bits = __ballot_sync(kAllLanes, size >= smallest && size <= L * kItems && g < batch.count);
    }
    while (bits) {
      const int64_t g = base + int64_t{__ffs(static_cast<int>(bits)) - 1} * gridDim.x;
      waiting = {base, bits & (bits - 1)};
      weigh_group(g);
      base = waiting.base;
      bits = waiting.bits;
      __syncwarp();  // before one of them goes on and writes
    }
  }
}

}  // namespace pkpo::cuda
