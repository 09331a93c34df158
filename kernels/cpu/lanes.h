// The vector registers of one instruction set, as far as the kernels need them. Everything here and in the headers that
// build on it is compiled for each instruction set (see isa.h) and therefore in an unnamed namespace.
//
// Arithmetic, comparison and conversion are the compiler's own vectors (GCC's and Clang's, on every architecture). Only
// what those express badly is spelled out for AVX-512 and AVX2: masks, minimum and maximum, selection. Everything else,
// SSE2 and NEON among it, takes the plain form on 16-byte vectors.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace pkpo::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Whether the compiler checks every access to memory: what is written out for many samples would take it minutes.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif

template <class T, int count>
struct VectorOf {
  typedef T type __attribute__((vector_size(count * sizeof(T))));
};

template <class V, class T>
V load_vector(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

// The same bits as another vector.
template <class V, class From>
V as(const From& v) {
  static_assert(sizeof(V) == sizeof(From));
  return (V)v;
}

template <class V, class T>
void store_vector(T* to, const V& v) {
  std::memcpy(to, &v, sizeof(v));
}

// The elements of two vectors, one after another, at the given places.
template <class V, int... places>
V shuffle(const V& a, const V& b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, places...);
#else
  using Index = std::conditional_t<sizeof(a[0]) == 8, int64_t, int32_t>;
  typedef Index Places __attribute__((vector_size(sizeof(V))));
  return __builtin_shuffle(a, b, Places{places...});
#endif
}

// Vectors of half the width one after another.
template <class V, class Half>
inline __attribute__((always_inline)) V join(const Half& a, const Half& b) {
#if defined(__clang__) || __GNUC__ >= 12
  return [&]<size_t... j>(std::index_sequence<j...>) {
    return __builtin_shufflevector(a, b, static_cast<int>(j)...);
  }(std::make_index_sequence<2 * sizeof(Half) / sizeof(a[0])>());
#else
  V v;
  std::memcpy(&v, &a, sizeof(a));
  std::memcpy(reinterpret_cast<char*>(&v) + sizeof(a), &b, sizeof(b));
  return v;
#endif
}

// Calls body<0>() .. body<count - 1>(), one after another, without a loop.
template <int count, class Body>
constexpr __attribute__((always_inline)) void unrolled(Body body) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (body.template operator()<i>(), ...);
  }(std::make_integer_sequence<int, count>());
}

// A register of Values and what is done with it lane by lane. A Mask holds one truth value a lane.
template <class Value>
struct Lanes {
  static constexpr int count = kVectorBytes / sizeof(Value);
  using Bits = std::conditional_t<sizeof(Value) == 8, int64_t, int32_t>;
  using Vector = typename VectorOf<Value, count>::type;
  using BitVector = typename VectorOf<Bits, count>::type;

  static Vector load(const Value* from) { return load_vector<Vector>(from); }
  static void store(Value* to, const Vector& v) { store_vector(to, v); }
  static Vector all(Value value) { return value - Vector{}; }

  // The first n < count elements, and `rest` in the other lanes.
  static Vector load_first(const Value* from, int64_t n, const Vector& rest) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Value) == 8)
      return _mm512_mask_loadu_pd(rest, first_lanes(n), from);
    else
      return _mm512_mask_loadu_ps(rest, first_lanes(n), from);
#else
    Value all[count];
    store(all, rest);
    for (int64_t i = 0; i < n; ++i) all[i] = from[i];
    return load(all);
#endif
  }
  static void store_first(Value* to, int64_t n, const Vector& v) {
#if defined(__AVX512F__)
    if (n <= count / 2) {  // half a register crosses fewer cache lines
      if constexpr (sizeof(Value) == 8)
        _mm256_mask_storeu_pd(to, first_lanes(n), _mm512_castpd512_pd256(v));
      else
        _mm256_mask_storeu_ps(to, first_lanes(n), _mm512_castps512_ps256(v));
      return;
    }
    if constexpr (sizeof(Value) == 8)
      _mm512_mask_storeu_pd(to, first_lanes(n), v);
    else
      _mm512_mask_storeu_ps(to, first_lanes(n), v);
#else
    for (int64_t i = 0; i < n; ++i) to[i] = v[i];
#endif
  }

  // Bits of |v|: these order as the magnitudes do, NaN above infinity.
  static BitVector magnitude(const Vector& v) { return as<BitVector>(v) & ~(Bits{1} << (8 * sizeof(Value) - 1)); }
  static BitVector larger(const BitVector& a, const BitVector& b) { return a > b ? a : b; }

#if defined(__AVX512F__)
  using Mask = std::conditional_t<sizeof(Value) == 8, __mmask8, __mmask16>;

  static Mask first_lanes(int64_t n) { return static_cast<Mask>((1u << n) - 1); }
  static Vector min(const Vector& a, const Vector& b) {
    if constexpr (sizeof(Value) == 8)
      return _mm512_min_pd(a, b);
    else
      return _mm512_min_ps(a, b);
  }
  static Vector max(const Vector& a, const Vector& b) {
    if constexpr (sizeof(Value) == 8)
      return _mm512_max_pd(a, b);
    else
      return _mm512_max_ps(a, b);
  }
  // max(a, b), given less(b, a): a selection, for which there are more units than for the maximum.
  static Vector max_by(Mask less, const Vector& a, const Vector& b) { return select(less, a, b); }
  template <int predicate>
  static Mask compare(const Vector& a, const Vector& b) {
    if constexpr (sizeof(Value) == 8)
      return _mm512_cmp_pd_mask(a, b, predicate);
    else
      return _mm512_cmp_ps_mask(a, b, predicate);
  }
  static Mask less(const Vector& a, const Vector& b) { return compare<_CMP_LT_OQ>(a, b); }
  static Mask equal(const Vector& a, const Vector& b) { return compare<_CMP_EQ_OQ>(a, b); }
  static Mask is_nan(const Vector& a) { return compare<_CMP_UNORD_Q>(a, a); }
  static Vector select(Mask mask, const Vector& yes, const Vector& no) {
    if constexpr (sizeof(Value) == 8)
      return _mm512_mask_blend_pd(mask, no, yes);
    else
      return _mm512_mask_blend_ps(mask, no, yes);
  }
  static bool any(Mask mask) { return mask != 0; }
  static bool every(Mask mask) { return mask == static_cast<Mask>((1u << count) - 1); }
  static int popcount(Mask mask) { return __builtin_popcount(mask); }
  static Mask either(Mask a, Mask b) { return a | b; }
#else
  using Mask = BitVector;  // all bits of a lane set, or none

#if defined(__AVX2__)
  static Vector min(const Vector& a, const Vector& b) {
    if constexpr (sizeof(Value) == 8)
      return _mm256_min_pd(a, b);
    else
      return _mm256_min_ps(a, b);
  }
  static Vector max(const Vector& a, const Vector& b) {
    if constexpr (sizeof(Value) == 8)
      return _mm256_max_pd(a, b);
    else
      return _mm256_max_ps(a, b);
  }
  static Vector select(const Mask& mask, const Vector& yes, const Vector& no) {
    if constexpr (sizeof(Value) == 8)
      return _mm256_blendv_pd(no, yes, as<Vector>(mask));
    else
      return _mm256_blendv_ps(no, yes, as<Vector>(mask));
  }
  static Vector max_by(const Mask& less, const Vector& a, const Vector& b) { return select(less, a, b); }
  static unsigned bits(const Mask& mask) {
    if constexpr (sizeof(Value) == 8)
      return _mm256_movemask_pd(as<Vector>(mask));
    else
      return _mm256_movemask_ps(as<Vector>(mask));
  }
  static bool any(const Mask& mask) { return bits(mask) != 0; }
  static bool every(const Mask& mask) { return bits(mask) == (1u << count) - 1; }
  static int popcount(const Mask& mask) { return __builtin_popcount(bits(mask)); }
#else
  static Vector min(const Vector& a, const Vector& b) { return a < b ? a : b; }
  static Vector max(const Vector& a, const Vector& b) { return a > b ? a : b; }
  static Vector select(const Mask& mask, const Vector& yes, const Vector& no) {
    return as<Vector>((mask & as<Mask>(yes)) | (~mask & as<Mask>(no)));
  }
  static Vector max_by(const Mask&, const Vector& a, const Vector& b) { return max(a, b); }
  static int popcount(const Mask& mask) {
    int total = 0;
    for (int i = 0; i < count; ++i) total -= static_cast<int>(mask[i]);
    return total;
  }
  static bool any(const Mask& mask) { return popcount(mask) > 0; }
  static bool every(const Mask& mask) { return popcount(mask) == count; }
#endif
  static Mask less(const Vector& a, const Vector& b) { return a < b; }
  static Mask equal(const Vector& a, const Vector& b) { return a == b; }
  static Mask is_nan(const Vector& a) { return a != a; }
  static Mask either(const Mask& a, const Mask& b) { return a | b; }
#endif

  // Which of `count` bytes are not zero; of the first n < count of them.
  static Mask nonzero(const uint8_t* from) {
#if defined(__AVX512F__)
    static_assert(count == 16);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm_test_epi8_mask(bytes, bytes);
#elif defined(__AVX2__)
    static_assert(count == 8);
    return as<BitVector>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))) != 0;
#else
    BitVector wide;
    for (int i = 0; i < count; ++i) wide[i] = from[i];
    return wide != 0;
#endif
  }
  static Mask nonzero_first(const uint8_t* from, int64_t n) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm_maskz_loadu_epi8(first_lanes(n), from);
    return _mm_test_epi8_mask(bytes, bytes);
#else
    uint8_t bytes[count] = {};
    for (int64_t i = 0; i < n; ++i) bytes[i] = from[i];
    return nonzero(bytes);
#endif
  }
};

// As many float64 as there are lanes of Value: sums are kept in float64, whatever the rewards.
template <class Value>
struct Wide;

template <>
struct Wide<double> {
  using Type = Lanes<double>::Vector;

  static Type load(const double* from) { return Lanes<double>::load(from); }
  static Type of(const Type& v) { return v; }
  static Type rounded(const Type& v) { return v; }
  static void store(double* to, const Type& v) { Lanes<double>::store(to, v + 0.0); }  // + 0: no zero is negative
  static void store_nonnegative(double* to, const Type& v) { Lanes<double>::store(to, v); }
};

// A pair of vectors that is calculated with as one.
struct Twice {
  using Half = Lanes<double>::Vector;
  Half low, high;

  friend Twice operator+(const Twice& a, const Twice& b) { return {a.low + b.low, a.high + b.high}; }
  friend Twice operator-(const Twice& a, const Twice& b) { return {a.low - b.low, a.high - b.high}; }
  friend Twice operator*(const Twice& a, const Twice& b) { return {a.low * b.low, a.high * b.high}; }
  friend Twice operator/(const Twice& a, const Twice& b) { return {a.low / b.low, a.high / b.high}; }
  friend Twice operator*(double a, const Twice& b) { return {a * b.low, a * b.high}; }
};

template <>
struct Wide<float> {
  using Type = Twice;
  static constexpr int half = Lanes<double>::count;
  using HalfVector = VectorOf<float, half>::type;

  static Twice::Half widen(const HalfVector& v) {
#if defined(__AVX512F__)
    return _mm512_cvtps_pd(v);
#elif defined(__AVX2__)
    return _mm256_cvtps_pd(v);
#else
    return __builtin_convertvector(v, Twice::Half);
#endif
  }
  static HalfVector narrow(const Twice::Half& v) {
#if defined(__AVX512F__)
    return _mm512_cvtpd_ps(v);
#elif defined(__AVX2__)
    return _mm256_cvtpd_ps(v);
#else
    return __builtin_convertvector(v, HalfVector);
#endif
  }

  static Type of(const Lanes<float>::Vector& v) {
    HalfVector halves[2];
    std::memcpy(halves, &v, sizeof(v));
    return {widen(halves[0]), widen(halves[1])};
  }
  static Lanes<float>::Vector rounded(const Type& v) {
    return join<Lanes<float>::Vector>(narrow(v.low), narrow(v.high));
  }
  static Type load(const float* from) {
    return {widen(load_vector<HalfVector>(from)), widen(load_vector<HalfVector>(from + half))};
  }
  static void store(float* to, const Type& v) {
    store_vector(to, narrow(v.low) + 0.0f);
    store_vector(to + half, narrow(v.high) + 0.0f);
  }
  static void store_nonnegative(float* to, const Type& v) {
    store_vector(to, narrow(v.low));
    store_vector(to + half, narrow(v.high));
  }
};

// The rest reads the same for one float64 and for lanes of them, so that a formula stands once.
inline double where_equal(double a, double b, double yes, double no) { return a == b ? yes : no; }
inline Twice::Half where_equal(const Twice::Half& a, const Twice::Half& b, const Twice::Half& yes,
                               const Twice::Half& no) {
  return Lanes<double>::select(Lanes<double>::equal(a, b), yes, no);
}
inline Twice where_equal(const Twice& a, const Twice& b, const Twice& yes, const Twice& no) {
  return {where_equal(a.low, b.low, yes.low, no.low), where_equal(a.high, b.high, yes.high, no.high)};
}

inline void fill(double& to, double value) { to = value; }
inline void fill(Twice::Half& to, double value) { to = value - Twice::Half{}; }
inline void fill(Twice& to, double value) {
  fill(to.low, value);
  fill(to.high, value);
}

template <class D>
D constant(double value) {
  D d;
  fill(d, value);
  return d;
}

}  // namespace
}  // namespace pkpo::cpu
