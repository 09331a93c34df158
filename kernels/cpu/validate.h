// The contents of a batch's index arrays, checked before any group is touched: a kernel never reads out of bounds.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "pkpo.h"

namespace pkpo::cpu {

// Empty where all is well; else what came and what is allowed.
inline std::string find_fault(const Groups& groups, int64_t samples) {
  constexpr uint64_t kLargestGroup = 0xffffffff;  // positions are kept in 32 bits while sorting
  const auto text = [](auto... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
  };
  if (!groups.offsets.data) {
    if (static_cast<uint64_t>(groups.width) > kLargestGroup)
      return text("n must be at most 2**32 - 1, got ", groups.width);
  } else {
    const Indices& offsets = groups.offsets;
    if (offsets[0] != 0) return text("offsets must start at 0, got ", offsets[0]);
    // All groups first, in a loop without a way out; which one it is, only if there is one.
    const bool fault = offsets.with_type([&](auto at) {
      int64_t wrong = 0;
      for (int64_t g = 0; g < groups.count; ++g) {
        const uint64_t size = static_cast<uint64_t>(at(g + 1)) - static_cast<uint64_t>(at(g));
        wrong |= (at(g + 1) < at(g)) | (size > kLargestGroup);
      }
      return wrong != 0;
    });
    for (int64_t g = 0; fault && g < groups.count; ++g) {
      const int64_t previous = offsets[g], next = offsets[g + 1];
      if (next < previous) {
        return text("offsets must not decrease, got ", next, " after ", previous, " at index ", g + 1);
      }
      const uint64_t size = static_cast<uint64_t>(next) - static_cast<uint64_t>(previous);
      if (size > kLargestGroup) {
        return text("a group must have at most 2**32 - 1 samples, got ", size, " in group ", g);
      }
    }
    const int64_t last = offsets[groups.count];
    if (last != samples) return text("offsets must end at the number of rewards, ", samples, ", got ", last);
  }
  if (groups.k.stride == 0) {
    return groups.k[0] < 1 ? text("k must be at least 1, got ", groups.k[0]) : std::string();
  }
  const bool fault = groups.k.with_type([&](auto at) {
    int64_t wrong = 0;
    for (int64_t g = 0; g < groups.count; ++g) wrong |= at(g) < 1;
    return wrong != 0;
  });
  for (int64_t g = 0; fault && g < groups.count; ++g) {
    if (groups.k[g] < 1) return text("k must be at least 1, got ", groups.k[g], " for group ", g);
  }
  return {};
}

}  // namespace pkpo::cpu
