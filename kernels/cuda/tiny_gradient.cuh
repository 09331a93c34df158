// The gradient of groups of one size, of N = 2, 4 or 8 samples, each in one thread's registers from memory to memory,
// as in tiny.cuh. One launch; a warp goes on to further tiles, and the coefficients are formed once where groups are
// alike.
//
// Rewards are sorted with the gradients that come to them, without their samples: equal rewards share a gradient, by
// which a sample finds its own. Cost a sample: log2(N) (log2(N) + 1) / 4 or fewer exchanges of five instructions each,
// 2 (N-1) instructions to find the result; nothing goes through shared memory.
#pragma once

#include "cuda/gradient.cuh"
#include "cuda/lines.cuh"
#include "cuda/sort.cuh"

namespace pkpo::cuda {

// A reward, or its key, and the gradient that comes to it.
template <class Reward>
struct Incoming {
  Reward reward;
  float gradient;
};
template <class Reward>
__device__ inline bool less(const Incoming<Reward>& a, const Incoming<Reward>& b) {
  return a.reward < b.reward;
}

// Are sums of these gradients exact in float64? So they are where none is less than 2^-24 of the largest, zeros apart.
template <int N>
__device__ inline bool sums_are_exact(const float (&gradient)[N]) {
  uint32_t largest = 0, smallest = 0xffffffffu;  // of the magnitudes less 1, zeros the largest of all
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const uint32_t magnitude = __float_as_uint(gradient[i]) & 0x7fffffffu;
    largest = Larger()(largest, magnitude);
    smallest = Smaller()(smallest, magnitude - 1);
  }
  return largest < 0x7f800000u && largest - (smallest + 1) <= 24u << 23;
}

// The gradients of `reward`s, of which `n` are there, sorted ones in `sorted`: equal ones, of ranks a to b, get
// (h[a] - h[b+1]) / (b - a + 1) each. above(i) gives the sum of the gradients that come to rank i and on, below(i) that
// of those before it.
template <int N, class Reward, class Above, class Below, class Times>
__device__ inline void share_gradient(const Coefficients<double>& c, const Incoming<Reward> (&sorted)[N], uint32_t n,
                                      Above above, Below below, Times times, const Reward (&reward)[N],
                                      float (&result)[N]) {
  const Team<1> team;
  double h[N], end = 0;  // of the place behind the top rank
#pragma unroll
  for (int i = 0; i < N; ++i) h[i] = 0;
  if (c.shape.has_up()) {
    double up[N];
    c.up(team, 0, up);
#pragma unroll
    for (int i = 1; i < N; ++i) h[i] = times(up[i], above(i));
  }
  if (c.shape.has_down()) {
    double down[N];
    c.down(team, 0, down);
#pragma unroll
    for (int i = 1; i < N; ++i) h[i] -= times(down[i], below(i));
    end = -times(c.top, above(0));
  }

  float of_first[N];  // by rank, of the first of equals
  bool is_rising = n == N;
#pragma unroll
  for (int i = 1; i < N; ++i) is_rising = is_rising && sorted[i].reward != sorted[i - 1].reward;
  if (!team.any(!is_rising)) {
#pragma unroll
    for (int i = 0; i < N; ++i) of_first[i] = static_cast<float>(h[i] - (i + 1 < N ? h[i + 1 < N ? i + 1 : i] : end));
  } else {
    uint32_t behind = n;  // the last of equals
#pragma unroll
    for (int i = N - 1; i >= 0; --i) {
      const uint32_t rank = static_cast<uint32_t>(i);
      of_first[i] = 0;
      if (rank >= n || (i > 0 && sorted[i].reward == sorted[i ? i - 1 : 0].reward)) continue;
      const double share = h[i] - end;
      of_first[i] = static_cast<float>(behind > rank + 1 ? share / static_cast<double>(behind - rank) : share);
      end = h[i];
      behind = rank;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    result[i] = of_first[N - 1];
#pragma unroll
    for (int j = N - 2; j >= 0; --j) result[i] = reward[i] == sorted[j].reward ? of_first[j] : result[i];
    result[i] += 0.0f;  // never -0
  }
}

// Of a group whose rewards are all there and whose gradients have exact sums, of the shape that all such groups have.
template <int N>
__device__ inline void weigh_plain_gradient(const Coefficients<double>& c, const float (&x)[N],
                                            const float (&gradient)[N], float (&result)[N]) {
  Incoming<float> sorted[N];
#pragma unroll
  for (int i = 0; i < N; ++i) sorted[i] = {x[i], gradient[i]};
  sort_in_thread(sorted);  // of rewards with their gradients
  double sums[N];
#pragma unroll
  for (int i = N - 1; i >= 0; --i) {
    sums[i] = static_cast<double>(sorted[i].gradient);
    if (i + 1 < N) sums[i] += sums[i + 1 < N ? i + 1 : i];
  }
  share_gradient(
      c, sorted, N, [&](int i) { return sums[i]; }, [&](int i) { return sums[0] - sums[i]; },
      [](double coefficient, double sum) { return coefficient * sum; }, x, result);  // of a plain group
}

// What a thread keeps in shared memory for any group.
template <int N>
struct alignas(16) Kept {
  double weights[N], above[N], below[N];
};

template <int N>
__device__ inline void weigh_any_gradient(const Call& call, int64_t group, const float (&x)[N],
                                          const float (&gradient)[N], Kept<N>& kept, float (&result)[N]) {
  constexpr uint32_t kAbsent = 0xffffffffu;  // the key of NaN
  Shape shape{0, 0, call.form};
  Incoming<uint32_t> sorted[N];
  uint32_t key[N], largest = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    key[i] = key_of(x[i]);
    shape.n += key[i] != kAbsent;
    sorted[i] = {key[i], key[i] == kAbsent ? 0 : gradient[i]};
    largest = Larger()(largest, __float_as_uint(sorted[i].gradient) & 0x7fffffffu);
  }
  if (group < call.batch.count) shape.k = clamp_k(k_of(call.batch, group), shape.n, call.form);
  set_weights<N>(Team<1>(), shape, 0, 1.0, kept.weights);
  sort_in_thread(sorted);
#pragma unroll
  for (int i = 0; i < N; ++i) kept.below[i] = static_cast<double>(sorted[i].gradient);

  const Cuts cuts = cuts_for(magnitude(static_cast<double>(__uint_as_float(largest))), shape.n);
  const Add add;
  Pair sum{0, 0};
#pragma unroll 1
  for (int i = N - 1; i >= 0; --i) {
    sum = add(sum, cut(kept.below[i], cuts));
    kept.above[i] = value(sum);
  }
  sum = {0, 0};
#pragma unroll 1
  for (int i = 0; i < N; ++i) {
    const double its_own = kept.below[i];
    kept.below[i] = value(sum);
    sum = add(sum, cut(its_own, cuts));
  }
  // Where nothing counts nothing comes, even of an infinite sum.
  share_gradient(
      Coefficients<double>(shape, kept.weights), sorted, shape.n, [&](int i) { return kept.above[i]; },
      [&](int i) { return kept.below[i]; },
      [](double coefficient, double of) { return coefficient != 0 ? coefficient * of : 0.0; }, key, result);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (key[i] == kAbsent || shape.k == 0) result[i] = 0;
  }
}

// So many blocks a multiprocessor shall hold at least: 128, 96 and 80 registers a thread.
template <int N>
constexpr int gradient_blocks = N == 8   ? 4
                                : N == 4 ? 5
                                         : 6;

template <int N>
__global__ void __launch_bounds__(kTinyBlock, gradient_blocks<N>) tiny_gradients(Call call) {
  constexpr int rows = Rows<N>::kRows;  // a lane
  constexpr int warps = kTinyBlock / kWarp, in_tile = rows * kWarp;
  __shared__ __align__(16) double common[N];
  __shared__ Kept<N> kept_by_threads[kTinyBlock];
  const Batch& batch = call.batch;
  const Team<1> team;
  const int lane = team.lane();
  const int64_t step = int64_t{gridDim.x} * warps;
  int64_t tile = int64_t{blockIdx.x} * warps + threadIdx.x / kWarp;
  Rows<N> next, next_gradient;
  const auto fetch = [&](int64_t of) {
    next.fetch(batch.rewards, batch.dtype, batch.count, of * in_tile, lane);
    next_gradient.fetch(call.grad, batch.dtype, batch.count, of * in_tile, lane);
  };
  fetch(tile);

  const Shape shape = shape_of_all<N>(call, common);
  const Coefficients<double> c(shape, common);

  for (; tile * in_tile < batch.count; tile += step) {
    float x[rows][N], gradient[rows][N];
    next.take(batch.dtype, lane, x);
    next_gradient.take(batch.dtype, lane, gradient);
    bool is_plain = shape.k > 0;
#pragma unroll
    for (int i = 0; i < rows * N; ++i) is_plain = is_plain && x[i / N][i % N] == x[i / N][i % N];
#pragma unroll
    for (int r = 0; r < rows; ++r) is_plain = is_plain && sums_are_exact(gradient[r]);
    if (!team.any(!is_plain)) {
      fetch(tile + step);  // while this tile is worked on
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        float result[N];
        weigh_plain_gradient(c, x[r], gradient[r], result);
        store_results(call, tile * in_tile + r * kWarp, lane, result);  // of plain groups
      }
    } else {
#pragma unroll
      for (int r = 0; r < rows; ++r) {
        const int64_t first = tile * in_tile + r * kWarp;
        float result[N];
        weigh_any_gradient(call, first + row_of_lane<N>(lane), x[r], gradient[r], kept_by_threads[threadIdx.x], result);
        store_results(call, first, lane, result);
      }
      fetch(tile + step);
    }
  }
}

}  // namespace pkpo::cuda
