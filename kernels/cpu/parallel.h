// How a batch is cut into pieces for threads: by samples, so that groups of very different sizes still balance.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pkpo.h"

namespace pkpo::cpu {

// Below this many samples a thread costs more than it saves: waking it takes some microseconds, a sample one
// nanosecond.
constexpr int64_t kSamplesPerThread = 4096;

inline int64_t piece_count(int64_t samples, int64_t threads) {
  return std::clamp<int64_t>(samples / kSamplesPerThread, 1, std::max<int64_t>(threads, 1));
}

// The first group of piece i of `pieces`; piece i is the groups [piece_begin(i), piece_begin(i + 1)).
inline int64_t piece_begin(const Groups& groups, int64_t i, int64_t pieces) {
  if (i >= pieces) return groups.count;
  if (!groups.offsets.data) return groups.count / pieces * i + std::min(i, groups.count % pieces);
  const int64_t samples = groups.offsets[groups.count];
  const int64_t target = samples / pieces * i;
  int64_t low = 0, high = groups.count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (groups.offsets[middle] < target) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace pkpo::cpu
