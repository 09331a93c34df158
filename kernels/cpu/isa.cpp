// Which instruction set runs: the best that the machine has, unless one is asked for.
#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace pkpo::cpu {
namespace {

struct Candidate {
  const char* name;
  const Functions *of_float, *of_double;
  bool available;
};

// From the best to the plainest.
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> all = {
#if defined(__x86_64__)
      {"avx512", &avx512_float, &avx512_double,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt")},
      {"avx2", &avx2_float, &avx2_double,
       __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt")},
#endif
      {"plain", &plain_float, &plain_double, true},
  };
  return all;
}

const Candidate* find(const std::string& name) {
  for (const Candidate& candidate : candidates()) {
    if (candidate.available && (name.empty() || candidate.name == name)) return &candidate;
  }
  std::string known;
  for (const std::string& available : available_isas()) known += (known.empty() ? "" : ", ") + available;
  throw std::invalid_argument("instruction set must be one that this machine has, " + known + ", got \"" + name + "\"");
}

std::atomic<const Candidate*>& chosen() {
  static std::atomic<const Candidate*> candidate = [] {
    const char* name = std::getenv("PKPO_CPU_ISA");
    return find(name ? name : "");
  }();
  return candidate;
}

const Candidate& candidate() { return *chosen().load(std::memory_order_relaxed); }

const Functions& functions(DType dtype) { return is_wide(dtype) ? *candidate().of_double : *candidate().of_float; }

}  // namespace

std::string isa() { return candidate().name; }

void set_isa(const std::string& name) { chosen().store(find(name), std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates()) {
    if (candidate.available) names.push_back(candidate.name);
  }
  return names;
}

void transform(const Groups& groups, Baseline baseline, DType dtype, const Array& rewards, const Array& out,
               int64_t first, int64_t last) {
  functions(dtype).transform(groups, baseline, dtype, rewards, out, first, last);
}

void transform_backward(const Groups& groups, Baseline baseline, DType dtype, const Array& grad, const Array& rewards,
                        const Array& out, int64_t first, int64_t last) {
  functions(dtype).transform_backward(groups, baseline, dtype, grad, rewards, out, first, last);
}

void max_at_k(const Groups& groups, DType dtype, const Array& rewards, const Array& out, int64_t first, int64_t last) {
  functions(dtype).max_at_k(groups, dtype, rewards, out, first, last);
}

void max_at_k_curve(const Groups& groups, const Indices& ks, int64_t count, DType dtype, const Array& rewards,
                    const Array& out, int64_t first, int64_t last) {
  functions(dtype).max_at_k_curve(groups, ks, count, dtype, rewards, out, first, last);
}

void max_at_k_backward(const Groups& groups, DType dtype, const Array& grad, const Array& rewards, const Array& out,
                       int64_t first, int64_t last) {
  functions(dtype).max_at_k_backward(groups, dtype, grad, rewards, out, first, last);
}

}  // namespace pkpo::cpu
