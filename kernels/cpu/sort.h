// Sorting one large group. A sample becomes an unsigned integer that orders as its reward does (-0 before +0), beside
// its position in the group.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>

namespace pkpo::cpu {
namespace {

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

  static constexpr int kDigits = 4;
  uint8_t digit(int d) const { return static_cast<uint8_t>(word >> (32 + 8 * d)); }
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

  static constexpr int kDigits = 8;
  uint8_t digit(int d) const { return static_cast<uint8_t>(key >> (8 * d)); }
};

// Sorts by key, least significant digit first. A pass reads and writes every entry once and has no branch to predict; a
// digit that all keys share (of the exponent, say) takes no pass. The result is in `entries`, which changes places with
// `spare` as often as there are passes.
template <class Entry>
void radix_sort(Entry*& entries, Entry*& spare, int64_t n) {
  uint32_t counts[Entry::kDigits][256] = {};
  for (int64_t i = 0; i < n; ++i) {
    for (int d = 0; d < Entry::kDigits; ++d) ++counts[d][entries[i].digit(d)];
  }
  for (int d = 0; d < Entry::kDigits; ++d) {
    if (counts[d][entries[0].digit(d)] == static_cast<uint32_t>(n)) continue;
    uint32_t next = 0;
    for (uint32_t& count : counts[d]) next += std::exchange(count, next);
    for (int64_t i = 0; i < n; ++i) spare[counts[d][entries[i].digit(d)]++] = entries[i];
    std::swap(entries, spare);
  }
}

}  // namespace
}  // namespace pkpo::cpu
