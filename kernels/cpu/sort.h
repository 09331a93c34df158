// Sorting one group. A sample becomes an unsigned integer that orders as its reward does, beside its position in the
// group: keys compare in one instruction, -0 comes before +0, and equal rewards keep their order of position, so the
// sorted sequence of values is the same for every order of the group.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace pkpo::cpu {

// A float32 key and its position share one 64-bit word; a group has less than 2^32 samples.
struct Entry32 {
  uint64_t word;

  Entry32(float value, int64_t position) {
    const uint32_t b = std::bit_cast<uint32_t>(value);
    const uint32_t key = b ^ (static_cast<uint32_t>(static_cast<int32_t>(b) >> 31) | 0x80000000u);
    word = static_cast<uint64_t>(key) << 32 | static_cast<uint32_t>(position);
  }
  double value() const {
    const uint32_t key = static_cast<uint32_t>(word >> 32);
    const uint32_t b = key ^ (static_cast<uint32_t>(static_cast<int32_t>(~key) >> 31) | 0x80000000u);
    return std::bit_cast<float>(b);
  }
  int64_t position() const { return static_cast<uint32_t>(word); }
  bool operator<(const Entry32& other) const { return word < other.word; }
};

struct Entry64 {
  uint64_t key;
  int64_t index;

  Entry64(double value, int64_t position) : index(position) {
    const uint64_t b = std::bit_cast<uint64_t>(value);
    key = b ^ (static_cast<uint64_t>(static_cast<int64_t>(b) >> 63) | 0x8000000000000000u);
  }
  double value() const {
    const uint64_t b = key ^ (static_cast<uint64_t>(static_cast<int64_t>(~key) >> 63) | 0x8000000000000000u);
    return std::bit_cast<double>(b);
  }
  int64_t position() const { return index; }
  bool operator<(const Entry64& other) const { return key != other.key ? key < other.key : index < other.index; }
};

// Keeps the samples that are present and sorts them, smallest reward first. Returns how many there are.
template <class Value, class In, class Entry>
int64_t sort_present(const In* rewards, int64_t stride, int64_t size, Entry* entries) {
  int64_t n = 0;
  for (int64_t i = 0; i < size; ++i) {
    const Value value = static_cast<Value>(rewards[i * stride]);
    entries[n] = Entry(value, i);
    n += value == value;
  }
  std::sort(entries, entries + n);
  return n;
}

}  // namespace pkpo::cpu
