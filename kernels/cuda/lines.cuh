// Rows of 2, 4 or 8 samples between device memory and a lane's registers, without shared memory: each lane reads and
// writes whole rows, at once where that is possible.
#pragma once

#include "cuda/rows.cuh"
#include "cuda/team.cuh"

namespace pkpo::cuda {

constexpr int kTinyBlock = 128;  // threads, of the kernels of such rows

// What is read or written at once of a row of so many bytes: all of it, or half of 32.
template <int bytes>
struct alignas(bytes < 16 ? bytes : 16) Line {
  using Word = std::conditional_t<bytes == 2, uint16_t, uint32_t>;
  static constexpr int kWords = (bytes < 16 ? bytes : 16) / sizeof(Word), kLines = bytes == 32 ? 2 : 1;
  Word word[kWords];
};

// Of a warp's 32 rows the one that a lane has: of 8 samples, which may take two lines, a lane's and its neighbour's are
// 16 rows apart, so that the warp reads and writes line after line, and neighbours exchange what is the other's.
template <int N>
__device__ inline int row_of_lane(int lane) {
  return N < 8 ? lane : lane / 2 + lane % 2 * 16;
}

// Two lines, the one at `lane` and the one 32 on, from or to the halves of a row.
__device__ inline void exchange_halves(uint32_t (&word)[8], int lane) {
  const bool is_odd = lane % 2 != 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t received = exchange(is_odd ? word[i] : word[i + 4], 1);
    (is_odd ? word[i] : word[i + 4]) = received;
  }
}

// The first words of `word` from or to a lane's line, and the words from the fifth on from or to the one 32 on, of
// `rows`, of which there are `count`.
template <int N, int bytes>
__device__ inline void load_lines(const void* rows, int64_t first, int64_t count, int lane, uint32_t* word) {
  using Lines = Line<bytes>;
  const int64_t at = Lines::kLines * first + (Lines::kLines == 2 ? lane : row_of_lane<N>(lane));
#pragma unroll
  for (int j = 0; j < Lines::kLines; ++j) {
    const Lines line =
        at + j * kWarp < Lines::kLines * count ? static_cast<const Lines*>(rows)[at + j * kWarp] : Lines{};
#pragma unroll
    for (int i = 0; i < Lines::kWords; ++i) word[4 * j + i] = line.word[i];
  }
}
template <int N, int bytes>
__device__ inline void store_lines(void* rows, int64_t first, int64_t count, int lane, const uint32_t* word) {
  using Lines = Line<bytes>;
  const int64_t at = Lines::kLines * first + (Lines::kLines == 2 ? lane : row_of_lane<N>(lane));
#pragma unroll
  for (int j = 0; j < Lines::kLines; ++j) {
    Lines line;
#pragma unroll
    for (int i = 0; i < Lines::kWords; ++i) line.word[i] = word[4 * j + i];
    if (at + j * kWarp < Lines::kLines * count) static_cast<Lines*>(rows)[at + j * kWarp] = line;
  }
}

// A thread's rows of a tile as they come from memory, which may not be there yet: nothing is done with their bits.
template <int N>
struct Rows {
  static constexpr int kRows = 8 / N;
  uint32_t word[kRows][N];

  // Of `count` rows those from `first` on; 0 behind them.
  __device__ void fetch(const void* rows, DType dtype, int64_t count, int64_t first, int lane) {
    const int log_bytes = log_bytes_of(dtype);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = first + r * kWarp;
      if (log_bytes == 2) {
        load_lines<N, 4 * N>(rows, row, count, lane, word[r]);
      } else if (log_bytes == 1) {
        load_lines<N, 2 * N>(rows, row, count, lane, word[r]);
      } else {
        load_lines<N, N>(rows, row, count, lane, word[r]);
      }
    }
  }

  // Rows of a lane's own, where those of two lines were another's too.
  __device__ void take(DType dtype, int lane, float (&x)[kRows][N]) {
    const int log_bytes = log_bytes_of(dtype);
    if constexpr (N == 8) {
      if (log_bytes == 2) exchange_halves(word[0], lane);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x[r][i] = log_bytes == 2   ? value_of_bits<float>(word[r][i], dtype)
                  : log_bytes == 1 ? value_of_bits<float>(static_cast<uint16_t>(word[r][i / 2] >> i % 2 * 16), dtype)
                                   : value_of_bits<float>(static_cast<uint8_t>(word[r][i / 4] >> i % 4 * 8), dtype);
      }
    }
  }
};

// Results of a lane's row, of those from `first` on.
template <int N>
__device__ inline void store_results(const Call& call, int64_t first, int lane, const float (&y)[N]) {
  const Batch& batch = call.batch;
  uint32_t word[N];
  if (batch.dtype == DType::float16 || batch.dtype == DType::bfloat16) {
#pragma unroll
    for (int i = 0; i < N; i += 2) word[i / 2] = pair_of_short(y[i], y[i + 1], batch.dtype);
    store_lines<N, 2 * N>(call.out, first, batch.count, lane, word);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) word[i] = __float_as_uint(y[i]);
    if constexpr (N == 8) exchange_halves(word, lane);
    store_lines<N, 4 * N>(call.out, first, batch.count, lane, word);
  }
}

}  // namespace pkpo::cuda
