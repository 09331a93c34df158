// Groups of one size, of N = 2, 4 or 8 samples, each in one thread's registers from memory to memory. One launch; a
// warp goes on to further tiles, and the coefficients are formed once where groups are alike.
//
// Values are sorted alone, without their samples: a sample finds its result by its value, since equal rewards have
// equal results. Cost a sample: log2(N) (log2(N) + 1) / 2 or fewer minima and maxima, 2 (N-1) instructions to find the
// result; nothing goes through shared memory.
#pragma once

#include "cuda/lines.cuh"
#include "cuda/scan.cuh"
#include "cuda/sort.cuh"

namespace pkpo::cuda {

// A sample's result, of the first of the ranks that have its value.
template <int N>
__device__ inline void find_results(const float (&x)[N], const float (&ordered)[N], const float (&y)[N],
                                    float (&result)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    result[i] = y[N - 1];
#pragma unroll
    for (int j = N - 2; j >= 0; --j) result[i] = x[i] == ordered[j] ? y[j] : result[i];
  }
}

// A group whose rewards are all there and in range, of the shape that all have whose rewards are all there.
template <int N>
__device__ inline void weigh_plain(const Coefficients<float>& c, const float (&x)[N], float (&result)[N]) {
  float ordered[N], y[N];
#pragma unroll
  for (int i = 0; i < N; ++i) ordered[i] = x[i];
  sort_in_thread(ordered);  // of values alone
  scan(Team<1>(), c, ordered, ordered[N - 1], 0, ordered[0], Beyond(), y);
  find_results(x, ordered, y, result);  // of a plain group
}

// Any group. `w` and `spare` are shared memory, the thread's own, for N values and as many.
template <int N>
__device__ inline void weigh_any(const Call& call, int64_t group, const float (&x)[N], float* w, float* spare,
                                 float (&result)[N]) {
  const Team<1> team;
  Shape shape{0, 0, call.form};
  float ordered[N], y[N], top = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool is_absent = x[i] != x[i];
    shape.n += !is_absent;
    ordered[i] = is_absent ? infinity<float>() : x[i];  // behind all others, or with their equals
  }
  if (group < call.batch.count) shape.k = clamp_k(k_of(call.batch, group), shape.n, call.form);
  sort_in_thread(ordered);
#pragma unroll
  for (uint32_t i = 0; i < N; ++i) top = i < shape.n ? ordered[i] : top;
#pragma unroll
  for (uint32_t i = 0; i < N; ++i) ordered[i] = i < shape.n ? ordered[i] : top;
  set_weights<N>(team, shape, 0, 1.0, w);
  float scanned[N];
#pragma unroll
  for (int i = 0; i < N; ++i) scanned[i] = ordered[i];
  scan_any(team, Coefficients<float>(shape, w), scanned, top, 0, ordered[0], Beyond(), Beyond(),
           !is_in_range(ordered[0]) || !is_in_range(top), spare, y);
  find_results(x, ordered, y, result);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (x[i] != x[i] || shape.k == 0) result[i] = 0;
  }
}

template <int N, bool usual>
__global__ void __launch_bounds__(kTinyBlock, usual ? (N == 8 ? 7 : 8) : (N == 8 ? 3 : 5)) tiny_groups(Call call) {
  if constexpr (usual) say_usual(call);
  constexpr int rows = Rows<N>::kRows;  // a lane
  constexpr int warps = kTinyBlock / kWarp, in_tile = rows * kWarp, room = N < 4 ? 4 : N;
  __shared__ __align__(16) float common[room], weights_of_threads[kTinyBlock][room];
  __shared__ float spare_of_threads[kTinyBlock][N];
  const Batch& batch = call.batch;
  const Team<1> team;
  const int lane = team.lane();
  const int64_t step = int64_t{gridDim.x} * warps;
  int64_t tile = int64_t{blockIdx.x} * warps + threadIdx.x / kWarp;
  Rows<N> next;
  next.fetch(batch.rewards, batch.dtype, batch.count, tile * in_tile, lane);

  const Shape shape = shape_of_all<N>(call, common);
  const Coefficients<float> c(shape, common);

  for (; tile * in_tile < batch.count; tile += step) {
    float x[rows][N];
    next.take(batch.dtype, lane, x);
    bool is_plain = shape.k > 0;
#pragma unroll
    for (int i = 0; i < rows * N; ++i) is_plain = is_plain && is_in_range(x[i / N][i % N]);
    const auto fetch_next = [&] { next.fetch(batch.rewards, batch.dtype, batch.count, (tile + step) * in_tile, lane); };
    if (!team.any(!is_plain)) {
      fetch_next();  // while this tile is worked on
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        float result[N];
        weigh_plain(c, x[r], result);
        store_results(call, tile * in_tile + r * kWarp, lane, result);  // of plain groups
      }
    } else {
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const int64_t first = tile * in_tile + r * kWarp;
        float result[N];
        weigh_any(call, first + row_of_lane<N>(lane), x[r], weights_of_threads[threadIdx.x],
                  spare_of_threads[threadIdx.x], result);
        store_results(call, first, lane, result);
      }
      fetch_next();
    }
  }
}

}  // namespace pkpo::cuda
