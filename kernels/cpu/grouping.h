// From the prompt of every sample to groups that lie one after another: a hash table numbers the ids in the order in
// which they first come, a counting sort lines the samples up. Two passes over the samples, no comparison sort; a
// sample costs one probe of a table of at most half its slots in use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pkpo::cpu {

// Numbers distinct keys 0, 1, 2, ... as they come.
class Numbering {
 public:
  // The number of the key with this hash; a new one gets the next number, `count()` before the call. `same(number)`
  // says whether the key with that number, whose hash is the same, is this one.
  template <class Same>
  int64_t number(uint64_t hash, Same same) {
    for (size_t i = first_slot(hash);; i = (i + 1) & (slots_.size() - 1)) {
      Slot& slot = slots_[i];
      if (slot.number < 0) {
        slot = Slot{hash, count_++};
        if (2 * static_cast<size_t>(count_) > slots_.size()) grow();
        return count_ - 1;
      }
      if (slot.hash == hash && same(slot.number)) return slot.number;
    }
  }

  int64_t count() const { return count_; }

 private:
  struct Slot {
    uint64_t hash = 0;
    int64_t number = -1;
  };

  // Multiplying by 2^64 over the golden ratio spreads hashes that differ in few bits over the high bits.
  size_t first_slot(uint64_t hash) const { return (hash * 0x9e3779b97f4a7c15u) >> shift_; }

  // The table follows the number of groups, not of samples, and so stays in the cache.
  void grow() {
    std::vector<Slot> old(slots_.size() * 4);
    old.swap(slots_);
    shift_ -= 2;
    for (const Slot& slot : old) {
      if (slot.number < 0) continue;
      size_t i = first_slot(slot.hash);
      while (slots_[i].number >= 0) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = slot;
    }
  }

  int shift_ = 64 - 8;
  std::vector<Slot> slots_ = std::vector<Slot>(size_t{1} << 8);
  int64_t count_ = 0;
};

// numbers[i] is the group of sample i, of `groups` groups. Writes offsets[0..groups], and order[0..samples) such that
// group g is the samples order[offsets[g]] .. order[offsets[g+1]-1], in the order in which they came.
inline void line_up(const int64_t* numbers, int64_t samples, int64_t groups, int64_t* order, int64_t* offsets) {
  std::vector<int64_t> next(static_cast<size_t>(groups) + 1, 0);
  for (int64_t i = 0; i < samples; ++i) ++next[numbers[i] + 1];
  for (int64_t g = 0; g < groups; ++g) next[g + 1] += next[g];
  for (int64_t g = 0; g <= groups; ++g) offsets[g] = next[g];
  for (int64_t i = 0; i < samples; ++i) order[next[numbers[i]]++] = i;
}

}  // namespace pkpo::cpu
