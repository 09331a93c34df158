// One group, sorted and held by a team: from its entries to results. What the kernels for small, larger and very large
// groups have in common.
#pragma once

#include "cuda/gradient.cuh"
#include "cuda/scan.cuh"
#include "cuda/sort.cuh"

namespace pkpo::cuda {

// A team's share of a sorted group: rank rank0 + i has value x[i] and belongs to sample[i]. Absent samples stand behind
// the n that are present and have the value of the top one (0 where there is none): a gap of zero, which counts
// nothing.
template <int I, class V>
struct Sorted {
  V x[I];
  V before;  // the value one rank below x[0]; at the lowest rank x[0]
  uint32_t sample[I];
  uint32_t rank0, n;
  uint32_t tied;  // which ranks have the value of the rank before, a bit each
};

// The rest of a group that a team holds whole, sorted, its values NaN where absent. `before`: of the thread before;
// `rises`: what is_rising() says, or false.
template <int I, class V, class Team>
__device__ inline void look_at_neighbours(const Team& team, V before, bool rises, Sorted<I, V>& group) {
  group.before = before;
  group.n = Team::kThreads * I;
  group.tied = 0;
  if (!rises) {
#pragma unroll
    for (int i = 0; i < I; ++i) {
      if ((i > 0 || team.thread > 0) && group.x[i] == (i ? group.x[i - 1] : before)) group.tied |= 1u << i;
    }
    const auto is_absent = [](V x) { return x != x; };
    if (team.any(is_absent(group.x[I - 1]))) {
      uint32_t present = 0;
      V top = 0;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        present += !is_absent(group.x[i]);
        top = is_absent(group.x[i]) ? top : group.x[i];
      }
      group.n = team.parts(present, 0u, Add()).all;
      top = team.broadcast(top, group.n > 0 ? static_cast<int>((group.n - 1) / I) : 0);
      if (is_absent(before)) group.before = top;
#pragma unroll
      for (int i = 0; i < I; ++i) {
        if (is_absent(group.x[i])) group.x[i] = top;
      }
    }
  }
  if (team.thread == 0) group.before = group.x[0];
}

template <class V>
__device__ inline bool is_out_of_range(V lowest, V highest) {
  return !(fabs(lowest) < too_large<V>() && fabs(highest) < too_large<V>());
}

// transform and max_at_k of a whole group, whose values are overwritten; y by rank. `spare` as for scan_any.
template <int I, class V, class Team>
__device__ inline void weigh(const Team& team, const Coefficients<V>& c, Sorted<I, V>& group, V* spare, V (&y)[I]) {
  const V top = team.broadcast(group.x[I - 1], Team::kThreads - 1), lowest = team.broadcast(group.x[0], 0);
  scan_any(team, c, group.x, top, group.rank0, group.before, Beyond(), Beyond(), is_out_of_range(lowest, top), spare,
           y);
  share_result(team, group.tied, y);
}

// The gradient of a whole group, by rank; gy by rank, 0 where absent. `h` has room for one number more than the team
// has ranks, and is the team's alone.
template <int I, class V, class Team>
__device__ inline void weigh_gradient(const Team& team, const Coefficients<double>& c, const Sorted<I, V>& group,
                                      const double (&gy)[I], double* h, double (&gx)[I]) {
  uint64_t largest = 0;
#pragma unroll
  for (int i = 0; i < I; ++i) largest = Larger()(largest, magnitude(gy[i]));
  largest = team.parts(largest, uint64_t{0}, Larger()).all;
  double own[I];
  const double total = scan_gradient(team, c, group.rank0, gy, cuts_for(largest, group.n), BeyondGradient(), own);
#pragma unroll
  for (int i = 0; i < I; ++i) {
    if (group.rank0 + i < group.n) h[group.rank0 + i] = own[i];
  }
  if (team.thread == 0) h[group.n] = c.top != 0 ? -(c.top * total) : 0.0;
  uint32_t first[I], last[I];
  find_ties(team, group.tied, group.rank0, group.n, first, last);
  team.sync();
#pragma unroll
  for (int i = 0; i < I; ++i) {
    gx[i] = 0;
    if (group.rank0 + i >= group.n) continue;
    const double share = h[first[i]] - h[last[i] + 1];
    gx[i] = last[i] > first[i] ? share / static_cast<double>(last[i] - first[i] + 1) : share;
  }
}

// Incoming gradients by rank, of the samples from `begin` on; of max_at_k, whose gradient is group g's, at rank 0.
template <int I, class V>
__device__ inline void load_gradient(const Call& call, int64_t begin, int64_t g, const Sorted<I, V>& group,
                                     double (&gy)[I]) {
#pragma unroll
  for (int i = 0; i < I; ++i) {
    gy[i] = 0;
    if (group.rank0 + i >= group.n) continue;
    if (call.form != Form::max_at_k) {
      gy[i] = load_element<V>(call.grad, call.batch.dtype, begin + group.sample[i]);
    } else if (group.rank0 + i == 0) {
      gy[i] = load_element<V>(call.grad, call.batch.dtype, g);
    }
  }
}

// What `call` asks of a whole group g, whose values become results. `h` as for weigh_gradient, `spare` as for scan_any.
template <Op op, int I, class V, class C, class Team>
__device__ inline void weigh_for(const Call& call, const Team& team, const Coefficients<C>& c, int64_t begin, int64_t g,
                                 double* h, V* spare, Sorted<I, V>& group) {
  std::conditional_t<op == Op::backward, double, V> result[I];
  if constexpr (op == Op::backward) {
    double gy[I];
    load_gradient(call, begin, g, group, gy);
    weigh_gradient(team, c, group, gy, h, result);
  } else {
    weigh(team, c, group, spare, result);
  }
#pragma unroll
  for (int i = 0; i < I; ++i) group.x[i] = static_cast<V>(result[i]);
}

// Results to their samples, whose numbers are below `limit`; 0 where a sample is absent or the group has no answer.
template <int I, class V, class Team>
__device__ inline void put_results(const Team&, const Sorted<I, V>& group, bool has_answer, uint32_t limit, V* to) {
  if (group.n == Team::kThreads * I && has_answer) {
#pragma unroll
    for (int i = 0; i < I; ++i) to[group.sample[i]] = group.x[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < I; ++i) {
    const bool counts = group.rank0 + i < group.n && has_answer;
    if (group.sample[i] < limit) to[group.sample[i]] = counts ? group.x[i] : V(0);
  }
}

// A thread's samples, which have the numbers of number_of(), from shared memory: of a team that has all of them from
// `full`, else from `own`, NaN from number `size` on.
template <int I, int L, class V>
__device__ inline void get_samples(const Team<L>& team, bool is_full, const V* full, const V* own, uint32_t size,
                                   V (&x)[I]) {
#pragma unroll
  for (int j = 0; j < I / 4; ++j) {
    const uint32_t number = number_of<I>(team, j);
    if (is_full) {
      const Piece<V>* pieces = reinterpret_cast<const Piece<V>*>(full + number);
#pragma unroll
      for (int i = 0; i < 4; ++i) x[4 * j + i] = pieces[i / Piece<V>::kItems].item[i % Piece<V>::kItems];
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) x[4 * j + i] = number + i < size ? own[number + i] : not_a_number<V>();
    }
  }
}

// Samples in a row in device memory, to and from shared memory, by `threads` threads; 16 bytes at a time where they
// begin at a multiple of 16 bytes. float32 and a full row, I samples a thread, take the shortest way.
template <int threads, int I, class V>
__device__ inline void load_chunk(const void* from, DType dtype, int64_t begin, int count, V* to, int thread) {
  int done = 0;
  if constexpr (sizeof(V) == 4) {
    if (dtype == DType::float32) {
      const float* start = static_cast<const float*>(from) + begin;
      if (reinterpret_cast<uintptr_t>(start) % 16 == 0) {
        const auto load = [&](int at) {
          *reinterpret_cast<float4*>(to + at) = *reinterpret_cast<const float4*>(start + at);
        };
        if (count == threads * I) {
#pragma unroll
          for (int i = 0; i < I / 4; ++i) load(4 * (i * threads + thread));
          return;
        }
        done = count & ~3;
#pragma unroll 1
        for (int i = 4 * thread; i < done; i += 4 * threads) load(i);
      }
    } else if (dtype == DType::float16 || dtype == DType::bfloat16) {
      const uint16_t* start = static_cast<const uint16_t*>(from) + begin;
      if (reinterpret_cast<uintptr_t>(start) % 16 == 0) {
        done = count & ~7;
        const bool is_half = dtype == DType::float16;
#pragma unroll 1
        for (int i = 8 * thread; i < done; i += 8 * threads) {
          const uint4 word = *reinterpret_cast<const uint4*>(start + i);
          const uint32_t words[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const uint16_t bits = static_cast<uint16_t>(words[j / 2] >> (j % 2 * 16));
            to[i + j] = is_half ? float_of_half(bits) : float_of_bfloat(bits);
          }
        }
      }
    }
  } else if (dtype == DType::float64) {
    const double* start = static_cast<const double*>(from) + begin;
    if (reinterpret_cast<uintptr_t>(start) % 16 == 0) {
      done = count & ~1;
#pragma unroll 1
      for (int i = 2 * thread; i < done; i += 2 * threads) {
        *reinterpret_cast<double2*>(to + i) = *reinterpret_cast<const double2*>(start + i);
      }
    }
  }
#pragma unroll 1
  for (int i = done + thread; i < count; i += threads) to[i] = load_element<V>(from, dtype, begin + i);
}

template <int threads, int I, class V>
__device__ inline void store_chunk(const V* from, void* to, DType dtype, int64_t begin, int count, int thread) {
  int done = 0;
  if constexpr (sizeof(V) == 4) {
    if (dtype == DType::float16 || dtype == DType::bfloat16) {
      uint16_t* start = static_cast<uint16_t*>(to) + begin;
      if (reinterpret_cast<uintptr_t>(start) % 16 == 0) {
        done = count & ~7;
        const bool is_half = dtype == DType::float16;
#pragma unroll 1
        for (int i = 8 * thread; i < done; i += 8 * threads) {
          uint32_t words[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float a = from[i + 2 * j] + 0.0f, b = from[i + 2 * j + 1] + 0.0f;
            const uint32_t low = is_half ? half_of_float(a) : bfloat_of_float(a);
            words[j] = low | static_cast<uint32_t>(is_half ? half_of_float(b) : bfloat_of_float(b)) << 16;
          }
          *reinterpret_cast<uint4*>(start + i) = make_uint4(words[0], words[1], words[2], words[3]);
        }
      }
    } else {
      float* start = static_cast<float*>(to) + begin;
      if (reinterpret_cast<uintptr_t>(start) % 16 == 0) {
        const auto store = [&](int at) {
          const float4 y = *reinterpret_cast<const float4*>(from + at);
          *reinterpret_cast<float4*>(start + at) = make_float4(y.x + 0.0f, y.y + 0.0f, y.z + 0.0f, y.w + 0.0f);
        };
        if (count == threads * I) {
#pragma unroll
          for (int i = 0; i < I / 4; ++i) store(4 * (i * threads + thread));
          return;
        }
        done = count & ~3;
#pragma unroll 1
        for (int i = 4 * thread; i < done; i += 4 * threads) store(i);
      }
    }
  } else if (dtype == DType::float64) {
    double* start = static_cast<double*>(to) + begin;
    if (reinterpret_cast<uintptr_t>(start) % 16 == 0) {
      done = count & ~1;
#pragma unroll 1
      for (int i = 2 * thread; i < done; i += 2 * threads) {
        const double2 y = *reinterpret_cast<const double2*>(from + i);
        *reinterpret_cast<double2*>(start + i) = make_double2(y.x + 0.0, y.y + 0.0);
      }
    }
  }
#pragma unroll 1
  for (int i = done + thread; i < count; i += threads) store_element(to, dtype, begin + i, from[i]);
}

}  // namespace pkpo::cuda
