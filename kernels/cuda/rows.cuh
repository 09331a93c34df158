// Samples in a row, between device memory and a row of values in shared memory, 16 bytes of device memory at a time
// wherever the row begins: sample i stands at values[place + i], where `place` is that of the first sample in its 16
// bytes. What else those 16 bytes hold is read too, and not looked at.
#pragma once

#include "cuda/device.cuh"

namespace pkpo::cuda {

// The most samples in 16 bytes: a row's shared memory has so many more places than samples.
constexpr int kPlaces = 16;

__host__ __device__ inline int log_bytes_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64:
      return 3;
    case DType::float32:
    case DType::int32:
      return 2;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16:
      return 1;
    default:
      return 0;
  }
}

__device__ inline int place_of(const void* row, DType dtype, int64_t begin) {
  const int log_bytes = log_bytes_of(dtype);
  return (static_cast<int>(reinterpret_cast<uintptr_t>(row) >> log_bytes) + static_cast<int>(begin)) &
         ((16 >> log_bytes) - 1);
}

// The bits of an element of that many bytes as a value.
template <class V>
__device__ inline V value_of_bits(uint8_t bits, DType dtype) {
  return dtype == DType::boolean ? (bits ? V(1) : V(0))
         : dtype == DType::int8  ? static_cast<V>(static_cast<int8_t>(bits))
                                 : static_cast<V>(bits);
}
template <class V>
__device__ inline V value_of_bits(uint16_t bits, DType dtype) {
  return dtype == DType::float16    ? float_of_half(bits)
         : dtype == DType::bfloat16 ? float_of_bfloat(bits)
                                    : static_cast<V>(static_cast<int16_t>(bits));
}
template <class V>
__device__ inline V value_of_bits(uint32_t bits, DType) {
  if constexpr (sizeof(V) == 8) {
    return static_cast<V>(static_cast<int32_t>(bits));
  } else {
    return __uint_as_float(bits);
  }
}
template <class V>
__device__ inline V value_of_bits(uint64_t bits, DType dtype) {
  const auto number = static_cast<long long>(bits);
  return dtype == DType::int64 ? static_cast<V>(number) : __longlong_as_double(number);
}

// Two results as elements of 16 bits, side by side.
__device__ inline uint32_t pair_of_short(float a, float b, DType dtype) {
  const bool is_half = dtype == DType::float16;
  const uint32_t low = is_half ? half_of_float(a) : bfloat_of_float(a);
  return low | static_cast<uint32_t>(is_half ? half_of_float(b) : bfloat_of_float(b)) << 16;
}

// 16 bytes as values.
template <class V>
__device__ inline void convert(const uint4& word, DType dtype, V* to) {
  const uint32_t words[4] = {word.x, word.y, word.z, word.w};
  const int bytes = 1 << log_bytes_of(dtype);
  if constexpr (sizeof(V) == 8) {
    if (bytes == 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i] = value_of_bits<V>(words[i], dtype);
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        to[i] = value_of_bits<V>(uint64_t{words[2 * i + 1]} << 32 | words[2 * i], dtype);
      }
    }
  } else if (bytes == 4) {
    *reinterpret_cast<uint4*>(to) = word;
  } else if (bytes == 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      to[i] = value_of_bits<V>(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)), dtype);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      to[i] = value_of_bits<V>(static_cast<uint8_t>(words[i / 4] >> (i % 4 * 8)), dtype);
    }
  }
}

// `threads` threads, up to I samples each.
template <int threads, int I, class V>
__device__ inline void load_row(const void* row, DType dtype, int64_t begin, int place, int count, V* values,
                                int thread) {
  const int log_bytes = log_bytes_of(dtype), log_each = 4 - log_bytes;
  const char* start = static_cast<const char*>(row) + ((begin - place) << log_bytes);
  int words = (place + count) >> log_each;
  if (sizeof(V) == 4 && log_bytes == 2) {
    constexpr int kAtOnce = 2;  // more would take registers that other things are in
    words = words < I / 4 * threads ? words : I / 4 * threads;
#pragma unroll 1
    for (int from = thread; from < words; from += kAtOnce * threads) {
      uint4 word[kAtOnce] = {};  // else those of the turn before count as used again, and take registers everywhere
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (from + i * threads < words) word[i] = reinterpret_cast<const uint4*>(start)[from + i * threads];
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (from + i * threads < words) reinterpret_cast<uint4*>(values)[from + i * threads] = word[i];
      }
    }
  } else {
#pragma unroll 1
    for (int at = thread; at < words; at += threads) {
      convert(reinterpret_cast<const uint4*>(start)[at], dtype, values + (at << log_each));
    }
  }
  const int done = (words << log_each) - place;
#pragma unroll 1
  for (int i = (done > 0 ? done : 0) + thread; i < count; i += threads) {
    values[place + i] = load_element<V>(row, dtype, begin + i);
  }
}

// Results, at the places where the samples were. `dtype` is that of the rewards.
template <int threads, int I, class V>
__device__ inline void store_row(const V* values, void* row, DType dtype, int64_t begin, int place, int count,
                                 int thread) {
  const bool is_short = dtype == DType::float16 || dtype == DType::bfloat16, is_double = dtype == DType::float64;
  const auto store = [&](void* to, const V* from) {
    *static_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
  };
  if (sizeof(V) == 4 && !is_short && count == threads * I && place == 0) {
    float* to = static_cast<float*>(row) + begin + 4 * thread;
    if (reinterpret_cast<uintptr_t>(to) % 16 == 0) {  // the usual: the shortest way
      const V* from = values + 4 * thread;
#pragma unroll
      for (int i = 0; i < I / 4; ++i) store(to + i * 4 * threads, from + i * 4 * threads);
      return;
    }
  }
  const DType result = is_short || is_double ? dtype : DType::float32;
  const int log_bytes = log_bytes_of(result), log_each = 4 - log_bytes, each = 1 << log_each,
            first = place & (each - 1);
  int head = count, tail = 0;  // samples at both ends that do not make 16 bytes
  if ((sizeof(V) == 8) == is_double && place_of(row, result, begin) == first) {
    head = (each - first) & (each - 1);
    head = head < count ? head : count;
    const int words = (count - head) >> log_each;
    tail = count - head - (words << log_each);
    const V* from = values + place + head;
    char* to = static_cast<char*>(row) + ((begin + head) << log_bytes);
    if constexpr (sizeof(V) == 8) {
#pragma unroll 1
      for (int at = thread; at < words; at += threads) {
        reinterpret_cast<double2*>(to)[at] = reinterpret_cast<const double2*>(from)[at];
      }
    } else if (is_short) {
#pragma unroll 1
      for (int at = thread; at < words; at += threads) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) word[i] = pair_of_short(from[8 * at + 2 * i], from[8 * at + 2 * i + 1], dtype);
        reinterpret_cast<uint4*>(to)[at] = make_uint4(word[0], word[1], word[2], word[3]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < I / 4; ++i) {
        const int at = i * threads + thread;
        if (at < words) store(to + 16 * at, from + 4 * at);
      }
    }
  }
#pragma unroll 1
  for (int i = thread; i < head + tail; i += threads) {
    const int at = i < head ? i : count - tail + (i - head);
    store_element(row, dtype, begin + at, values[place + at]);
  }
}

}  // namespace pkpo::cuda
