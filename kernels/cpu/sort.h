// Sorting one large group by radix. A sample becomes an unsigned integer that orders as its reward does (-0 before +0,
// an absent one behind all others), beside its position in the group.
//
// Least significant digit first: a pass reads and writes every entry once and has no branch to predict; a digit that
// all keys share (of the exponent, say) takes no pass. With digits of 11 bits there are three passes instead of four
// for float32, six instead of eight for float64; with those of 8 bits the counts of a small group take less time than
// its passes, and the places that a large one is written to stay within reach of the address translation.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "scratch.h"

namespace pkpo::cpu {
namespace {

// A float32 key and its position share one 64-bit word; a group has less than 2^32 samples.
struct Entry32 {
  uint64_t word;

  static constexpr int kBits = 32;
  static uint32_t key_of(float value) {
    const uint32_t b = std::bit_cast<uint32_t>(value);
    return value == value ? b ^ (static_cast<uint32_t>(static_cast<int32_t>(b) >> 31) | 0x80000000u) : ~uint32_t{0};
  }
  Entry32(uint32_t key, int64_t position) : word(static_cast<uint64_t>(key) << 32 | static_cast<uint32_t>(position)) {}

  uint32_t key() const { return static_cast<uint32_t>(word >> 32); }
  bool absent() const { return key() == ~uint32_t{0}; }
  double value() const {
    const uint32_t b = key() ^ (static_cast<uint32_t>(static_cast<int32_t>(~key()) >> 31) | 0x80000000u);
    return std::bit_cast<float>(b);
  }
  int64_t position() const { return static_cast<uint32_t>(word); }
};

struct Entry64 {
  uint64_t key_;
  int64_t position_;

  static constexpr int kBits = 64;
  static uint64_t key_of(double value) {
    const uint64_t b = std::bit_cast<uint64_t>(value);
    return value == value ? b ^ (static_cast<uint64_t>(static_cast<int64_t>(b) >> 63) | 0x8000000000000000u)
                          : ~uint64_t{0};
  }
  Entry64(uint64_t key, int64_t position) : key_(key), position_(position) {}

  uint64_t key() const { return key_; }
  bool absent() const { return key_ == ~uint64_t{0}; }
  double value() const {
    const uint64_t b = key_ ^ (static_cast<uint64_t>(static_cast<int64_t>(~key_) >> 63) | 0x8000000000000000u);
    return std::bit_cast<double>(b);
  }
  int64_t position() const { return position_; }
};

// The n values as entries by key, in one of two places for n each; the other one is spare.
template <class Entry, int bits, class Value>
Entry* radix_sort(const Value* values, int64_t n, Entry* entries, Entry* spare) {
  constexpr int kDigits = (Entry::kBits + bits - 1) / bits, kCount = 1 << bits;
  const auto digit = [](auto key, int d) { return static_cast<size_t>(key >> (bits * d)) & (kCount - 1); };
  Scratch scratch;
  using Counts = uint32_t[kCount];
  Counts* counts = scratch.take<Counts>(kDigits);
  std::fill(counts[0], counts[0] + kDigits * kCount, 0);
  for (int64_t i = 0; i < n; ++i) {
    const auto key = Entry::key_of(values[i]);
    for (int d = 0; d < kDigits; ++d) ++counts[d][digit(key, d)];
  }
  bool formed = false;
  for (int d = 0; d < kDigits; ++d) {
    uint32_t* at = counts[d];
    if (at[digit(Entry::key_of(values[0]), d)] == static_cast<uint32_t>(n)) continue;
    uint32_t next = 0;
    for (int i = 0; i < kCount; ++i) next += std::exchange(at[i], next);
    if (!formed) {
      for (int64_t i = 0; i < n; ++i) {
        const auto key = Entry::key_of(values[i]);
        entries[at[digit(key, d)]++] = Entry(key, i);
      }
      formed = true;
    } else {
      for (int64_t i = 0; i < n; ++i) spare[at[digit(entries[i].key(), d)]++] = entries[i];
      std::swap(entries, spare);
    }
  }
  for (int64_t i = 0; !formed && i < n; ++i) entries[i] = Entry(Entry::key_of(values[i]), i);
  return entries;
}

template <class Entry, class Value>
Entry* sorted(const Value* values, int64_t n, Entry* entries, Entry* spare) {
  if (n < 64 * Entry::kBits || n > 1 << 18) return radix_sort<Entry, 8>(values, n, entries, spare);
  return radix_sort<Entry, 11>(values, n, entries, spare);
}

}  // namespace
}  // namespace pkpo::cpu
