// The contents of a batch's index arrays, checked before any group is touched: a kernel never reads out of bounds.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "pkpo.h"

namespace pkpo::cpu {

// Empty where all is well; else what came and what is allowed.
inline std::string find_fault(const Groups& groups, int64_t samples) {
  constexpr int64_t kLargestGroup = 0xffffffff;  // positions are kept in 32 bits while sorting
  std::ostringstream fault;
  if (!groups.offsets.data) {
    if (groups.width > kLargestGroup) fault << "n must be at most 2**32 - 1, got " << groups.width;
  } else {
    int64_t previous = groups.offsets[0];
    if (previous != 0) {
      fault << "offsets must start at 0, got " << previous;
      return fault.str();
    }
    for (int64_t g = 0; g < groups.count; ++g) {
      const int64_t next = groups.offsets[g + 1];
      if (next < previous) {
        fault << "offsets must not decrease, got " << next << " after " << previous << " at index " << g + 1;
        return fault.str();
      }
      if (next - previous > kLargestGroup) {
        fault << "a group must have at most 2**32 - 1 samples, got " << next - previous << " in group " << g;
        return fault.str();
      }
      previous = next;
    }
    if (previous != samples) {
      fault << "offsets must end at the number of rewards, " << samples << ", got " << previous;
      return fault.str();
    }
  }
  if (groups.k.stride == 0) {
    if (groups.k[0] < 1) fault << "k must be at least 1, got " << groups.k[0];
    return fault.str();
  }
  for (int64_t g = 0; g < groups.count; ++g) {
    if (groups.k[g] < 1) {
      fault << "k must be at least 1, got " << groups.k[g] << " for group " << g;
      return fault.str();
    }
  }
  return fault.str();
}

}  // namespace pkpo::cpu
