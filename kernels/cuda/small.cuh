// Groups of one size that share warps: a warp takes I samples a thread, 32 I of as many groups as fit. One launch; a
// warp goes on to further tiles, and the coefficients are formed once where groups are alike.
//
//     rows -> shared memory -> registers -> sorted -> scanned -> shared memory -> rows
#pragma once

#include "cuda/launches.h"
#include "cuda/warp.cuh"

namespace pkpo::cuda {

// What a warp needs of its tile once the samples are in registers.
struct Row {
  int64_t begin, tile;
  int place, count;
  uint32_t turn;  // whose buffer they are in
};

// Whether tiles that are not plain are done apart, half of the groups at a time with half the samples a thread, so that
// they take no more registers than those that are.
template <int I, int L>
constexpr bool is_done_by_halves = I == 16 && 2 * L <= kWarp;

// A tile of groups of up to L * I samples. `weights` has room for all of them.
template <Op op, int I, int L>
__device__ inline void weigh_by_halves(const Call& call, const Row& row, float* values, float* weights) {
  constexpr int teams = kWarp / (2 * L), room = L * I;
  const auto first_of = [](uint32_t half) { return half * teams + thread_here() % kWarp / (2 * L); };
#pragma unroll 1
  for (uint32_t half = 0; half < 2; ++half) {
    const Team<2 * L> team = Team<2 * L>().here();
    const uint32_t width = static_cast<uint32_t>(call.batch.width), before = first_of(half) * width,
                   of_team = first_of(0) * room;
    const bool is_group = before < static_cast<uint32_t>(row.count);
    const auto number = [&] { return row.tile * 2 * teams + first_of(half); };
    const auto weights_for = [&](uint32_t n, uint32_t rank0, Shape& shape) -> const float* {
      shape = shape_of(call, number(), n);
      set_weights_by_pieces<I / 2>(team, shape, rank0, 1.0, weights + of_team);
      return weights + of_team;
    };
    weigh_teams<op, I / 2, float>(call, team, TeamGroup{row.begin + before, is_group ? width : 0, 0, is_group, false},
                                  values, values + row.place + (is_group ? before : 0),
                                  weights + teams * room + of_team, nullptr, number, weights_for);
    __syncwarp();
  }
}

// Groups of up to L * I samples.
template <class V, int I, int L, Op op, bool usual>
__global__ void __launch_bounds__(small_threads<I>, small_blocks<V, I, L, op, usual>()) small_groups(Call call) {
  if constexpr (usual) say_usual(call);
  using C = std::conditional_t<op == Op::backward, double, V>;
  constexpr int teams = kWarp / L, room = L * I, warps = small_threads<I> / kWarp, buffers = sizeof(V) == 4 ? 2 : 1;
  __shared__ __align__(16) V values_of_warps[buffers][warps][kWarp * I + kPlaces];
  __shared__ __align__(16) C common[room], weights_of_warps[warps][kWarp * I];
  __shared__ double h_of_warps[op == Op::backward ? warps : 1][op == Op::backward ? teams * (room + 1) : 1];
  __shared__ Row row_of_warps[warps];
  const Batch& batch = call.batch;
  const auto lane = [] { return static_cast<int>(thread_here() % kWarp); };
  const auto warp = [] { return static_cast<int>(thread_here() / kWarp); };
  const auto which = [&] { return lane() / L; };

  const uint32_t width = static_cast<uint32_t>(batch.width), step = gridDim.x * warps, tile_size = teams * width;
  int64_t tile = int64_t{blockIdx.x} * warps + warp();
  // Whole tiles of 16 bytes in a row that need no conversion come while the one before is worked on.
  const bool come_ahead = buffers == 2 && batch.dtype == DType::float32 && tile_size % 4 == 0 &&
                          reinterpret_cast<uintptr_t>(batch.rewards) % 16 == 0;
  const auto comes_ahead = [&](int64_t of) { return come_ahead && (of + 1) * teams <= batch.count; };
  const auto fetch = [&](int64_t of, V* to) {
    if (!comes_ahead(of)) return;
    const uint32_t first = 4 * lane();
    const V* from = static_cast<const V*>(batch.rewards) + of * tile_size + first;
    to += first;
    if (width == room) {
#pragma unroll
      for (int i = 0; i < I / 4; ++i) copy_ahead(to + 4 * kWarp * i, from + 4 * kWarp * i);
    } else {
#pragma unroll 1
      for (uint32_t at = 0; first + at < tile_size; at += 4 * kWarp) copy_ahead(to + at, from + at);
    }
  };
  fetch(tile, values_of_warps[0][warp()]);

  // What `common` is for; there, so as to take no registers. n is no group's where it is for none.
  __shared__ uint32_t n_of_common, k_of_common;
  {
    const Team<L> team;
    const bool alike = has_one_k(batch);
    const uint32_t k = alike ? clamp_k(k_of(batch, 0), width, call.form) : 0;
    n_of_common = alike && !(is_done_by_halves<I, L> && usual && k == 1) ? width : 0xffffffffu;
    k_of_common = k;
    if (alike) set_weights<I>(team, Shape{width, k, call.form}, team.thread * I, 1.0, common);
  }
  __syncthreads();  // every warp wrote the same

  for (uint32_t turn = 0; tile * teams < batch.count;) {
    const Team<L> team = Team<L>().here();
    V* values = values_of_warps[turn][warp()];
    // A sample's number counts from `origin`, whose value is own[0]: the beginning of its group or, where all groups
    // fill their room, of the tile; then `first` is the number of the group's first.
    const int64_t left = batch.count - tile * teams, begin = tile * tile_size;
    const int groups = left < teams ? static_cast<int>(left) : teams, count = groups * static_cast<int>(width);
    const bool is_group = which() < groups;
    const uint32_t size = is_group ? width : 0;
    int place = 0;
    if (comes_ahead(tile)) {
      wait_for_copies();
      fetch(tile + step, values_of_warps[turn ^ (buffers - 1)][warp()]);
    } else {
      place = place_of(batch.rewards, batch.dtype, begin);
      load_row<kWarp, I>(batch.rewards, batch.dtype, begin, place, count, values, lane());
    }
    const bool is_full = width == room && groups == teams && place == 0;
    const uint32_t before = is_full ? 0 : which() * width, first = is_full ? which() * room : 0;
    row_of_warps[warp()] = {begin, tile, place, count, turn};
    __syncwarp();

    const TeamGroup its{begin + before, size, first, is_group, is_full};
    V *own = values + place + before, *spare = values + which() * room;
    const auto number = [&] { return row_of_warps[warp()].tile * teams + which(); };
    if constexpr (is_done_by_halves<I, L>) {
      const auto common_for = [&](uint32_t n, uint32_t, Shape& shape) -> const C* {
        shape = Shape{n, k_of_common, call.form};
        return common;
      };
      constexpr Groups groups = usual ? Groups::usual : Groups::plain;
      if (n_of_common != width ||
          !weigh_teams<op, I, C, groups>(call, team, its, values, own, spare, nullptr, number, common_for)) {
        weigh_by_halves<op, I, L>(call, row_of_warps[warp()], values, weights_of_warps[warp()]);
      }
    } else {
      const auto weights_for = [&](uint32_t n, uint32_t rank0, Shape& shape) -> const C* {
        shape = Shape{n, n > 0 ? k_of_common : 0, call.form};
        if (!team.any(n != n_of_common && n > 0)) return common;
        shape = shape_of(call, number(), n);
        C* of_team = weights_of_warps[warp()] + which() * room;
        set_weights_by_pieces<I>(team, shape, rank0, 1.0, of_team);
        return of_team;
      };
      double* h = nullptr;
      if constexpr (op == Op::backward) h = h_of_warps[warp()] + which() * (room + 1);
      weigh_teams<op, I, C>(call, team, its, values, own, spare, h, number, weights_for);
    }
    const Row row = row_of_warps[warp()];
    if constexpr (op != Op::max_at_k) {
      __syncwarp();
      store_row<kWarp, I>(values_of_warps[row.turn][warp()], call.out, batch.dtype, row.begin, row.place, row.count,
                          lane());
    }
    tile = row.tile + step;
    turn = row.turn ^ (buffers - 1);
    __syncwarp();  // before the next tile
  }
}

// Their launches.
template <int I, int L>
int64_t blocks_for(const Call& call) {
  constexpr int64_t groups = kWarp / L * (small_threads<I> / kWarp);  // a block
  return (call.batch.count + groups - 1) / groups;
}

template <class V, int I, int L, Op op, bool usual>
cudaError_t launch_small(const Call& call, Stream stream) {
  return launch<small_groups<V, I, L, op, usual>>(blocks_for<I, L>(call), small_threads<I>, 0, stream, call);
}

// Groups of up to 16 L samples: 16 a thread take the fewest instructions; 8 a thread the shortest time where that is a
// warp's one tile.
template <class V, int L, Op op, bool usual>
cudaError_t launch_light(const Call& call, Stream stream) {
  bool is_one_turn = false;
  const int64_t blocks = blocks_for<8, 2 * L>(call);
  const cudaError_t error =
      fits_at_once<small_groups<V, 8, 2 * L, op, usual>>(blocks, small_threads<8>, 0, &is_one_turn);
  if (error != cudaSuccess) return error;
  return is_one_turn ? launch_small<V, 8, 2 * L, op, usual>(call, stream)
                     : launch_small<V, 16, L, op, usual>(call, stream);
}

template <class V, Op op, bool usual>
cudaError_t run_small_of(const Call& call, Stream stream) {
  const int64_t room = call.batch.width;
  if (room <= 4) return launch_small<V, 4, 1, op, usual>(call, stream);
  if (room <= 8) return launch_small<V, 8, 1, op, usual>(call, stream);
  if constexpr (sizeof(V) == 4 && op != Op::backward) {
    if (room <= 16) return launch_light<V, 1, op, usual>(call, stream);
    if (room <= 32) return launch_light<V, 2, op, usual>(call, stream);
    if (room <= 64) return launch_light<V, 4, op, usual>(call, stream);
    if (room <= 128) return launch_light<V, 8, op, usual>(call, stream);
    if (room <= 256) return launch_light<V, 16, op, usual>(call, stream);
    return launch_small<V, 16, 32, op, usual>(call, stream);
  } else {
    if (room <= 16) return launch_small<V, 8, 2, op, usual>(call, stream);
    if (room <= 32) return launch_small<V, 8, 4, op, usual>(call, stream);
    if (room <= 64) return launch_small<V, 8, 8, op, usual>(call, stream);
    if (room <= 128) return launch_small<V, 8, 16, op, usual>(call, stream);
    return launch_small<V, 8, 32, op, usual>(call, stream);
  }
}

}  // namespace pkpo::cuda
