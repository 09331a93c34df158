// How much each gap counts (the table in kernels/README.md), formed by the team that weighs the group: products of
// simple ratios from the top rank down, along the tree of team.cuh, in float64.
//
// Cost a rank: one ratio, two or three multiplications; once for all groups that a team does where they are alike. By
// pieces twice, in half of the registers or fewer.
#pragma once

#include "cuda/team.cuh"

namespace pkpo::cuda {

// a / b to within a unit in the last place, for 1 <= b < 2^32.
__device__ inline double ratio(double a, double b) {
  double inverse = about_one_over(b);
  inverse = fma(inverse, fma(-b, inverse, 1.0), inverse);
  inverse = fma(inverse, fma(-b, inverse, 1.0), inverse);
  const double quotient = a * inverse;
  return fma(inverse, fma(-b, quotient, a), quotient);
}

// A group as it is weighed: n samples present, 1 <= k <= n; k = 0 where there is no answer but zeros.
struct Shape {
  uint32_t n, k;
  Form form;

  __device__ bool has_up() const { return form == Form::loo_1 || form == Form::loo; }
  __device__ bool has_down() const { return form != Form::loo_1 || k == 1; }
  __device__ bool has_top() const { return form != Form::loo_1; }
  __device__ double top() const {
    const double N = n, K = k;
    switch (form) {
      case Form::none:
        return ratio(K, N);
      case Form::loo:
        return n > 1 ? -ratio(ratio(K, N), N - 1) : 0.0;
      case Form::max_at_k:
        return 1;
      default:
        return 0;
    }
  }

  // w[q] is the product of factor(q) .. factor(n-1) with loo-1, where w[q] counts gap q; else w[q-1] is, which counts
  // it there. factor(q) is step(q), which n has no part in, but for the top rank and those behind it.
  __device__ double step(uint32_t q) const {
    if (form == Form::loo_1) return q + 2 > k ? ratio(static_cast<double>(q + 2 - k), static_cast<double>(q) + 1) : 0.0;
    if (q == 0) return 1;
    return q + 1 > k ? ratio(static_cast<double>(q + 1 - k), q) : 0.0;
  }
  // `share` is k / n, `its_step` is step(q).
  __device__ double factor(uint32_t q, double its_step, double share) const {
    if (q + 1 < n) return its_step;
    if (q + 1 > n) return 1;
    return form == Form::loo_1 ? share : q == 0 ? 1 : its_step * share;
  }
  __device__ double share() const { return ratio(k, n); }

  // loo-1 with k = 1: every sample against the mean of the others, whose coefficients are no weights.
  __device__ bool is_mean() const { return form == Form::loo_1 && k == 1; }
  // What coefficients have in common that are more than weights.
  __device__ double scale() const {
    const double N = n, K = k;
    if (is_mean()) return n > 1 ? ratio(ratio(1, N), N - 1) : 0.0;
    if (form == Form::loo) return n > k ? ratio(ratio(1, N - 1), N - K) : 0.0;
    return form == Form::max_at_k && k > 0 ? ratio(1, K) : 0.0;
  }
  // What is kept for rank q: its weight, or the coefficient where that is all the weight is for.
  template <class T>
  __device__ T kept(uint32_t q, double weight, double scale) const {
    if (is_mean()) return static_cast<T>(static_cast<double>(q) * scale);
    if (form == Form::max_at_k) return static_cast<T>(weight * (static_cast<double>(q) * scale));
    return static_cast<T>(weight);
  }
};

// That of group `number`, of which n samples are present; there may be no such group.
__device__ inline Shape shape_of(const Call& call, int64_t number, uint32_t n) {
  const int64_t k = number < call.batch.count ? k_of(call.batch, number) : 1;
  return {n, clamp_k(k, n, call.form), call.form};
}

// 16 bytes that are read or written at once.
template <class T>
struct alignas(16) Piece {
  static constexpr int kItems = 16 / sizeof(T);
  T item[kItems];
};

// A team's weights in shared memory, each written and read by the thread that has the rank, whose own they are: 16
// bytes of every thread side by side, for all banks of that memory are read so.
template <int I, class T, class Team>
__device__ inline void get_weights(const Team& team, const T* from, T (&w)[I]) {
  const Piece<T>* pieces = reinterpret_cast<const Piece<T>*>(from) + computed_here(team.thread);
#pragma unroll
  for (int i = 0; i < I; ++i) w[i] = pieces[i / Piece<T>::kItems * team.threads()].item[i % Piece<T>::kItems];
}
template <int I, class T, class Team>
__device__ inline void put_weights(const Team& team, const T (&w)[I], T* to) {
  Piece<T>* pieces = reinterpret_cast<Piece<T>*>(to) + computed_here(team.thread);
#pragma unroll
  for (int i = 0; i < I; ++i) pieces[i / Piece<T>::kItems * team.threads()].item[i % Piece<T>::kItems] = w[i];
}

// The weights of a group as put_weights() left them, and from them the coefficients of its gaps. T is the type in which
// terms are formed.
template <class T>
struct Coefficients {
  Shape shape;
  const T* w;
  double scale;
  T top;

  __device__ Coefficients(const Shape& of, const T* weights) : shape(of), w(weights), scale(0), top(0) {
    if (shape.form == Form::loo) scale = shape.scale();
    if (shape.has_top()) top = static_cast<T>(shape.top());
  }

  // Of the thread's ranks, rank0 .. rank0 + I - 1. Behind the top rank any number.
  template <int I, class Team>
  __device__ void up(const Team& team, uint32_t rank0, T (&c)[I]) const {
    const double N = shape.n;
    get_weights(team, w, c);
    if (shape.form == Form::loo) {
#pragma unroll
      for (int i = 0; i < I; ++i) c[i] = static_cast<T>(c[i] * (static_cast<double>(rank0 + i) * N * scale));
    }
  }
  template <int I, class Team>
  __device__ void down(const Team& team, uint32_t rank0, T (&c)[I]) const {
    const double N = shape.n, K = shape.k;
    if (shape.form == Form::loo_1) {
      const double of_mean = shape.scale();  // 0 but for k = 1
      double above = N - rank0;
#pragma unroll
      for (int i = 0; i < I; ++i, above -= 1) c[i] = static_cast<T>(above * of_mean);
      return;
    }
    get_weights(team, w, c);
    if (shape.form == Form::loo) {
#pragma unroll
      for (int i = 0; i < I; ++i) {
        c[i] = static_cast<T>(c[i] * ((N * (N - 1 - static_cast<double>(rank0 + i)) + K) * scale));
      }
    }
  }
};

// Writes what is kept of a thread's ranks; gives the product of the factors of the team's. `beyond` is that of those
// above; step_at(i) gives shape.step() of the thread's rank i.
template <int I, class T, class Team, class StepAt>
__device__ inline double set_weights(const Team& team, const Shape& shape, uint32_t rank0, double beyond,
                                     StepAt step_at, T* w) {
  const double share = shape.share(), scale = shape.scale();
  double factor[I];
#pragma unroll
  for (int i = 0; i < I; ++i) factor[i] = shape.factor(rank0 + i, step_at(i), share);
  const Trees<I, double, Multiply, double> trees(factor);
  const Parts<double> parts = team.parts(trees.all(), 1.0, beyond, 1.0, Multiply());
  T own[I];
#pragma unroll
  for (int i = 0; i < I; ++i) own[i] = shape.template kept<T>(rank0 + i, trees.from(i, parts.after), scale);
  put_weights(team, own, w);
  return parts.all;
}
template <int I, class T, class Team>
__device__ inline double set_weights(const Team& team, const Shape& shape, uint32_t rank0, double beyond, T* w) {
  return set_weights<I>(team, shape, rank0, beyond, [&](int i) { return shape.step(rank0 + i); }, w);
}

// Products along the tree above runs of eight ranks: of all of them; of what comes after each.
template <int runs>
__device__ inline double product_of(const double* run) {
  if constexpr (runs == 1) {
    return *run;
  } else {
    return product_of<runs / 2>(run) * product_of<runs / 2>(run + runs / 2);
  }
}
template <int runs>
__device__ inline void set_after(const double* run, double after, double* after_run) {
  if constexpr (runs == 1) {
    *after_run = after;
  } else {
    set_after<runs / 2>(run, after * product_of<runs / 2>(run + runs / 2), after_run);
    set_after<runs / 2>(run + runs / 2, after, after_run + runs / 2);
  }
}

// set_weights() where registers are scarce: a piece of ranks at a time, whose factors are computed twice and not held.
template <int I, class T, class Team>
__device__ inline double set_weights_by_pieces(const Team& team, const Shape& shape, uint32_t rank0, double beyond,
                                               T* w) {
  constexpr int kEach = Piece<T>::kItems, kRun = I < 8 ? I : 8, kRuns = I / kRun;
  const double share = shape.share(), scale = shape.scale();
  const auto factor = [&](int i) { return shape.factor(rank0 + i, shape.step(rank0 + i), share); };
  double of_run[kRuns], after_run[kRuns];
#pragma unroll
  for (int run = 0; run < kRuns; ++run) {
    of_run[run] = 1;
#pragma unroll 1
    for (int i = run * kRun; i < (run + 1) * kRun; i += kEach) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) of_run[run] *= factor(i + j);
    }
  }
  const Parts<double> parts = team.parts(product_of<kRuns>(of_run), 1.0, beyond, 1.0, Multiply());
  set_after<kRuns>(of_run, parts.after, after_run);
  Piece<T>* pieces = reinterpret_cast<Piece<T>*>(w) + computed_here(team.thread);
#pragma unroll
  for (int run = kRuns - 1; run >= 0; --run) {
#pragma unroll 1
    for (int i = (run + 1) * kRun - kEach; i >= run * kRun; i -= kEach) {
      Piece<T> piece;
#pragma unroll
      for (int j = kEach - 1; j >= 0; --j) {
        after_run[run] *= factor(i + j);
        piece.item[j] = shape.template kept<T>(rank0 + i + j, after_run[run], scale);
      }
      pieces[i / kEach * team.threads()] = piece;
    }
  }
  return parts.all;
}

// The shape of groups that are alike, have N samples, all of them there, and are a thread's each; its weights go to
// shared memory, for the block. k = 0 where k differs from group to group.
template <int N, class T>
__device__ inline Shape shape_of_all(const Call& call, T* w) {
  const Batch& batch = call.batch;
  const bool alike = has_one_k(batch);
  const Shape shape{N, alike ? clamp_k(k_of(batch, 0), N, call.form) : 0, call.form};
  if (alike && threadIdx.x == 0) set_weights<N>(Team<1>(), shape, 0, 1.0, w);
  __syncthreads();
  return shape;
}

}  // namespace pkpo::cuda
