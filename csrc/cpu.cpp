// The ops on CPU tensors: arguments checked, output made, groups shared out to torch's threads. Implements the schemas
// that pkpo_kernels/ops.py defines; includes stable headers only, so that one build serves every torch from 2.10 on.

#include <torch/csrc/stable/library.h>

#include "cpu/parallel.h"
#include "cpu/validate.h"
#include "ops.h"

namespace pkpo {
namespace {

// The batch, its offsets and k read and found in order.
Groups checked_groups(const Arguments& arguments) {
  const Groups groups = arguments.groups();
  const std::string fault = cpu::find_fault(groups, arguments.samples());
  if (!fault.empty()) fail(arguments.op(), fault);
  return groups;
}

// Calls body(first, last) with ranges of the groups, in parallel where there is enough to do.
template <class Body>
void for_each_piece(const Groups& groups, int64_t samples, const Body& body) {
  const int64_t pieces = cpu::piece_count(samples, torch::stable::get_num_threads());
  if (pieces == 1) return body(0, groups.count);
  torch::stable::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    body(cpu::piece_begin(groups, begin, pieces), cpu::piece_begin(groups, end, pieces));
  });
}

// A contiguous tensor that a kernel only reads.
Array read(const Tensor& tensor) { return Array{const_cast<void*>(tensor.const_data_ptr())}; }

struct CpuBackend {
  static Tensor transform(const Arguments& arguments, Baseline baseline) {
    const Groups groups = checked_groups(arguments);
    Tensor out = empty(arguments.sample_sizes(), arguments.result_type(), arguments.rewards());
    const Array rewards = read(arguments.rewards());
    const Array result{out.mutable_data_ptr()};
    for_each_piece(groups, arguments.samples(), [&](int64_t first, int64_t last) {
      cpu::transform(groups, baseline, arguments.dtype(), rewards, result, first, last);
    });
    return out;
  }

  static Tensor transform_backward(const Arguments& arguments, Baseline baseline, const Tensor& grad) {
    const Groups groups = checked_groups(arguments);
    const Tensor gradient = arguments.gradient(grad, arguments.sample_sizes());
    Tensor out = empty(arguments.sample_sizes(), arguments.result_type(), arguments.rewards());
    const Array rewards = read(arguments.rewards());
    const Array gradients = read(gradient);
    const Array result{out.mutable_data_ptr()};
    for_each_piece(groups, arguments.samples(), [&](int64_t first, int64_t last) {
      cpu::transform_backward(groups, baseline, arguments.dtype(), gradients, rewards, result, first, last);
    });
    return out;
  }

  static Tensor max_at_k(const Arguments& arguments) {
    const Groups groups = checked_groups(arguments);
    Tensor out = empty(arguments.group_sizes(), arguments.result_type(), arguments.rewards());
    const Array rewards = read(arguments.rewards());
    const Array result{out.mutable_data_ptr()};
    for_each_piece(groups, arguments.samples(), [&](int64_t first, int64_t last) {
      cpu::max_at_k(groups, arguments.dtype(), rewards, result, first, last);
    });
    return out;
  }

  static Tensor max_at_k_backward(const Arguments& arguments, const Tensor& grad) {
    const Groups groups = checked_groups(arguments);
    const Tensor gradient = arguments.gradient(grad, arguments.group_sizes());
    Tensor out = empty(arguments.sample_sizes(), arguments.result_type(), arguments.rewards());
    const Array rewards = read(arguments.rewards());
    const Array gradients = read(gradient);
    const Array result{out.mutable_data_ptr()};
    for_each_piece(groups, arguments.samples(), [&](int64_t first, int64_t last) {
      cpu::max_at_k_backward(groups, arguments.dtype(), gradients, rewards, result, first, last);
    });
    return out;
  }

  static Tensor max_at_k_curve(const Arguments& arguments, const Sizes& ks) {
    const Groups groups = checked_groups(arguments);
    Sizes sizes = arguments.group_sizes();
    sizes.push_back(static_cast<int64_t>(ks.size()));
    Tensor out = empty(sizes, arguments.result_type(), arguments.rewards());
    const Array rewards = read(arguments.rewards());
    const Array result{out.mutable_data_ptr()};
    const Indices indices{ks.data(), true, 1};
    for_each_piece(groups, arguments.samples(), [&](int64_t first, int64_t last) {
      cpu::max_at_k_curve(groups, indices, sizes.back(), arguments.dtype(), rewards, result, first, last);
    });
    return out;
  }
};

// `name` becomes the instruction set in use, "" leaves it; gives the one in use and then all that the machine has.
std::string cpu_isa(StringHandle choice) {
  const std::string name = take_string(choice);
  try {
    if (!name.empty()) cpu::set_isa(name);
    std::string report = cpu::isa() + ":";
    for (const std::string& available : cpu::available_isas()) report += " " + available;
    return report;
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(std::string("pkpo::_cpu_isa: ") + error.what());
  }
}

}  // namespace
}  // namespace pkpo

STABLE_TORCH_LIBRARY_IMPL(pkpo, CompositeExplicitAutograd, library) {
  library.impl("_cpu_isa", TORCH_BOX(&pkpo::cpu_isa));
}

STABLE_TORCH_LIBRARY_IMPL(pkpo, CPU, library) { pkpo::Ops<pkpo::CpuBackend>::implement(library); }
