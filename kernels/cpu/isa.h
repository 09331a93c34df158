// One set of functions per instruction set: batch.cpp compiled once for each, under the name that PKPO_ISA has there.
#pragma once

#include "pkpo.h"

namespace pkpo::cpu {

struct Functions {
  const char* name;
  decltype(&cpu::transform) transform;
  decltype(&cpu::transform_backward) transform_backward;
  decltype(&cpu::max_at_k) max_at_k;
  decltype(&cpu::max_at_k_curve) max_at_k_curve;
  decltype(&cpu::max_at_k_backward) max_at_k_backward;
};

// `plain` is what every machine of the architecture has: SSE2 on x86-64, NEON on ARM.
extern const Functions plain;
#if defined(__x86_64__)
extern const Functions avx2;
extern const Functions avx512;
#endif

}  // namespace pkpo::cpu
