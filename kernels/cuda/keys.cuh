// What is sorted: a reward's order as an unsigned integer, and the sample it belongs to. All entries of a group differ
// (their samples do), so that the sorted order is one and the same however it was reached.
#pragma once

#include "cuda/device.cuh"

namespace pkpo::cuda {

// The first bit in the place of all.
__device__ inline uint32_t all_of_sign(uint32_t bits) {
  return static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31);
}

// Unsigned integers in the order of the values; NaN, an absent sample, above all of them.
__device__ inline uint32_t key_of(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 becomes 0
  return value != value ? 0xffffffffu : bits ^ (all_of_sign(bits) | 0x80000000u);
}
__device__ inline uint64_t key_of(double value) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(value + 0.0));
  return value != value ? ~uint64_t{0} : bits ^ ((bits >> 63) ? ~uint64_t{0} : uint64_t{1} << 63);
}
template <class V>
using KeyOf = decltype(key_of(V()));
// The value itself, if finite, of whose bits the last, `numbers`, are left out; `number` stands there, and its first
// bit changes the sign.
__device__ inline float short_key_of(float value, uint32_t numbers, uint32_t number) {
  return __uint_as_float(and_xor(__float_as_uint(value), ~numbers, number));
}
// The nearest finite value; of NaN the largest.
__device__ inline float finite(float value) {
  constexpr float largest = 0x1.fffffep127f;
  return fmaxf(fminf(value, largest), -largest);
}
__device__ inline float value_of(uint32_t key) { return __uint_as_float(key ^ (~all_of_sign(key) | 0x80000000u)); }
__device__ inline double value_of(uint64_t key) {
  return __longlong_as_double(static_cast<long long>(key ^ ((key >> 63) ? uint64_t{1} << 63 : ~uint64_t{0})));
}

// A float64's key and sample.
struct WideEntry {
  uint64_t key;
  uint32_t sample;
};

__device__ inline bool less(uint32_t a, uint32_t b) { return a < b; }
__device__ inline bool less(uint64_t a, uint64_t b) { return a < b; }
__device__ inline bool less(const WideEntry& a, const WideEntry& b) {
  return a.key < b.key || (a.key == b.key && a.sample < b.sample);
}

// The exact entries of each type of value.
template <class V>
struct Entries;

template <>
struct Entries<float> {
  using Entry = uint64_t;  // key in the upper half, sample in the lower
  __device__ static Entry make(float value, uint32_t sample) { return uint64_t{key_of(value)} << 32 | sample; }
  __device__ static float value(Entry entry) { return value_of(static_cast<uint32_t>(entry >> 32)); }
  __device__ static uint32_t sample(Entry entry) { return static_cast<uint32_t>(entry); }
  // Of the sample whose number is larger by that.
  __device__ static Entry moved(Entry entry, uint32_t by) { return entry + by; }
};

template <>
struct Entries<double> {
  using Entry = WideEntry;
  __device__ static Entry make(double value, uint32_t sample) { return {key_of(value), sample}; }
  __device__ static double value(const Entry& entry) { return value_of(entry.key); }
  __device__ static uint32_t sample(const Entry& entry) { return entry.sample; }
  __device__ static Entry moved(const Entry& entry, uint32_t by) { return {entry.key, entry.sample + by}; }
};

// `count` entries in shared memory, for merging. A place is left free after every I, so that threads that read or write
// I in a row start in different banks. A narrow shelf takes 6 bytes for a float32's entry instead of 8.
template <class Entry, int I, bool narrow = false>
struct Shelf {
  static_assert(std::is_same_v<Entry, uint64_t> && !narrow);
  uint64_t* entries;
  __device__ Shelf(void* memory, uint32_t) : entries(static_cast<uint64_t*>(memory)) {}
  __host__ __device__ static constexpr uint32_t place(uint32_t i) { return i + i / I; }
  static constexpr size_t bytes(uint32_t count) { return size_t{8} * place(count); }
  __device__ uint64_t get(uint32_t i) const { return entries[place(i)]; }
  __device__ void put(uint32_t i, uint64_t entry) const { entries[place(i)] = entry; }
};

template <class Key, int I>
struct ShelfOfTwo {
  Key* keys;
  uint16_t* samples;  // of a block
  __host__ __device__ static constexpr uint32_t place(uint32_t i) { return i + i / I; }
  __device__ ShelfOfTwo(void* memory, uint32_t count)
      : keys(static_cast<Key*>(memory)), samples(reinterpret_cast<uint16_t*>(keys + place(count))) {}
  __device__ ShelfOfTwo(void* its_keys, void* its_samples)
      : keys(static_cast<Key*>(its_keys)), samples(static_cast<uint16_t*>(its_samples)) {}
  static constexpr size_t bytes(uint32_t count) { return (sizeof(Key) + 2) * place(count); }
  __device__ Key operator[](uint32_t i) const { return keys[place(i)]; }
};

template <int I>
struct Shelf<uint64_t, I, true> : ShelfOfTwo<uint32_t, I> {
  using ShelfOfTwo<uint32_t, I>::ShelfOfTwo;
  __device__ uint64_t get(uint32_t i) const {
    return uint64_t{this->keys[this->place(i)]} << 32 | this->samples[this->place(i)];
  }
  __device__ void put(uint32_t i, uint64_t entry) const {
    this->keys[this->place(i)] = static_cast<uint32_t>(entry >> 32);
    this->samples[this->place(i)] = static_cast<uint16_t>(entry);
  }
};

template <int I, bool narrow>
struct Shelf<WideEntry, I, narrow> : ShelfOfTwo<uint64_t, I> {
  using ShelfOfTwo<uint64_t, I>::ShelfOfTwo;
  __device__ WideEntry get(uint32_t i) const { return {this->keys[this->place(i)], this->samples[this->place(i)]}; }
  __device__ void put(uint32_t i, const WideEntry& entry) const {
    this->keys[this->place(i)] = entry.key;
    this->samples[this->place(i)] = static_cast<uint16_t>(entry.sample);
  }
};

}  // namespace pkpo::cuda
