// Sorting one group. A sample becomes an unsigned integer that orders as its reward does (-0 before +0), beside its
// position in the group. Equal keys keep their order of position; the sorted sequence of values is the same for every
// order of the group.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

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

// Up to here a sample's rank is counted, one comparison with every other sample: n^2 comparisons, but a register full
// of them in one instruction and none to be predicted. Beyond, the keys are sorted digit by digit.
constexpr int64_t kCountedRanks = 64;

// The compiler's own vectors (GCC's and Clang's on every architecture), four at a time: they stay in registers.
template <class Value>
struct Lanes {
  using Count = std::conditional_t<sizeof(Value) == 8, int64_t, int32_t>;
  typedef Value Vector __attribute__((vector_size(16)));
  typedef Count Counts __attribute__((vector_size(16)));
  static_assert(sizeof(Vector) == 16 && sizeof(Counts) == 16);
  static constexpr int64_t kVectors = 4, kWidth = 16 / sizeof(Value), kBlock = kVectors * kWidth;
};

// Ranks of up to kCountedRanks values, equal ones in the order in which they stand. Reads and ranks whole blocks of
// lanes: what lies behind the n values has no influence on theirs.
template <class Value>
void count_ranks(const Value* values, int64_t n, int32_t* ranks) {
  using L = Lanes<Value>;
  typename L::Count less[kCountedRanks];
  for (int64_t begin = 0; begin < n; begin += L::kBlock) {
    typename L::Vector block[L::kVectors];
    typename L::Counts counts[L::kVectors] = {};
    std::memcpy(block, values + begin, sizeof(block));
    for (int64_t j = 0; j < n; ++j) {
      const typename L::Vector other = values[j] - typename L::Vector{};
      for (int64_t v = 0; v < L::kVectors; ++v) counts[v] -= other < block[v];
    }
    std::memcpy(less + begin, counts, sizeof(counts));
  }
  uint8_t equals[kCountedRanks] = {};
  for (int64_t i = 0; i < n; ++i) ranks[i] = static_cast<int32_t>(less[i]) + equals[less[i]]++;
}

// Sorts by key, least significant digit first; equal keys keep their order. A pass reads and writes every entry once
// and has no branch to predict; a digit that all keys share (of the exponent, say) takes no pass. The result is in
// `entries`, which changes places with `spare` as often as there are passes.
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

// Keeps the samples that are present and sorts them, smallest reward first. Returns how many there are. Uses `spare`,
// as large as `entries`, and may change places with it.
template <class Value, class In, class Entry>
int64_t sort_present(const In* rewards, int64_t stride, int64_t size, Entry*& entries, Entry*& spare) {
  int64_t n = 0;
  if (size <= kCountedRanks) {
    Value values[kCountedRanks];
    for (int64_t i = 0; i < size; ++i) {
      values[i] = static_cast<Value>(rewards[i * stride]);
      n += values[i] == values[i];
    }
    int32_t positions[kCountedRanks], ranks[kCountedRanks];
    if (n < size) {
      int64_t next = 0;
      for (int64_t i = 0; i < size; ++i) {
        if (values[i] != values[i]) continue;
        values[next] = values[i];
        positions[next++] = static_cast<int32_t>(i);
      }
    }
    std::fill(values + n, values + std::min(n + Lanes<Value>::kBlock, kCountedRanks), Value(0));
    count_ranks(values, n, ranks);
    if (n < size) {
      for (int64_t i = 0; i < n; ++i) entries[ranks[i]] = Entry(values[i], positions[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) entries[ranks[i]] = Entry(values[i], i);
    }
    return n;
  }
  for (int64_t i = 0; i < size; ++i) {
    const Value value = static_cast<Value>(rewards[i * stride]);
    entries[n] = Entry(value, i);
    n += value == value;
  }
  if (n > 1) radix_sort(entries, spare, n);
  return n;
}

}  // namespace pkpo::cpu
