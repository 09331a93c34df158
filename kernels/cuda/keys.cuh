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
// Signed integers in the order of the values, of whose bits the last, `numbers`, are left out and `number` stands
// there. NaN without a sign is above all others; where one with a sign is, is not said.
__device__ inline int32_t short_key_of(float value, uint32_t numbers, uint32_t number) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return static_cast<int32_t>(xor_and(and_or(bits, ~numbers, number), all_of_sign(bits), 0x7fffffffu & ~numbers));
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
  __device__ static bool is_absent(Entry entry) { return entry >> 32 == 0xffffffffu; }
  __device__ static Entry moved(Entry entry, uint32_t by) { return entry + by; }  // to a sample so much further on
};

template <>
struct Entries<double> {
  using Entry = WideEntry;
  __device__ static Entry make(double value, uint32_t sample) { return {key_of(value), sample}; }
  __device__ static double value(const Entry& entry) { return value_of(entry.key); }
  __device__ static uint32_t sample(const Entry& entry) { return entry.sample; }
  __device__ static bool is_absent(const Entry& entry) { return entry.key == ~uint64_t{0}; }
  __device__ static Entry moved(const Entry& entry, uint32_t by) { return {entry.key, entry.sample + by}; }
};

// Entries in shared memory, for merging. A place is left free after every eight, so that threads that read or write
// eight in a row start in different banks.
template <class Entry>
struct Shelf;

__host__ __device__ constexpr uint32_t shelf_places(uint32_t entries) { return entries + entries / 8; }
__device__ inline uint32_t shelf_place(uint32_t i) { return i + (i >> 3); }

template <>
struct Shelf<uint64_t> {
  uint64_t* entries;
  __device__ Shelf(void* memory, uint32_t) : entries(static_cast<uint64_t*>(memory)) {}
  static constexpr size_t bytes(uint32_t count) { return size_t{8} * shelf_places(count); }
  __device__ uint64_t get(uint32_t i) const { return entries[shelf_place(i)]; }
  __device__ void put(uint32_t i, uint64_t entry) const { entries[shelf_place(i)] = entry; }
};

template <>
struct Shelf<WideEntry> {
  uint64_t* keys;
  uint16_t* samples;  // of at most kLargestBlock
  __device__ Shelf(void* memory, uint32_t count)
      : keys(static_cast<uint64_t*>(memory)), samples(reinterpret_cast<uint16_t*>(keys + shelf_places(count))) {}
  static constexpr size_t bytes(uint32_t count) { return size_t{10} * shelf_places(count); }
  __device__ WideEntry get(uint32_t i) const { return {keys[shelf_place(i)], samples[shelf_place(i)]}; }
  __device__ void put(uint32_t i, const WideEntry& entry) const {
    keys[shelf_place(i)] = entry.key;
    samples[shelf_place(i)] = static_cast<uint16_t>(entry.sample);
  }
};

}  // namespace pkpo::cuda
