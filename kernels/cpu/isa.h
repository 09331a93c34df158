// One set of functions per instruction set and type that rewards are compared as: batch.cpp compiled once for each,
// under the name that PKPO_ISA and PKPO_VALUE give it there.
#pragma once

#include "pkpo.h"

namespace pkpo::cpu {

struct Functions {
  decltype(&cpu::transform) transform;
  decltype(&cpu::transform_backward) transform_backward;
  decltype(&cpu::max_at_k) max_at_k;
  decltype(&cpu::max_at_k_curve) max_at_k_curve;
  decltype(&cpu::max_at_k_backward) max_at_k_backward;
};

// `plain` is what every machine of the architecture has: SSE2 on x86-64, NEON on ARM.
extern const Functions plain_float, plain_double;
#if defined(__x86_64__)
extern const Functions avx2_float, avx2_double;
extern const Functions avx512_float, avx512_double;
#endif

}  // namespace pkpo::cpu
