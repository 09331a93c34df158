// What the torch bindings share: the ops' arguments, checked before any work, as the plain pointers a kernel takes.
// Every message names the op and the argument, says what came and what is allowed; pkpo_kernels/_checks.py says the
// same words for the backends that are written in Python.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/pkpo.h"

namespace pkpo {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

template <class... Parts>
[[noreturn]] void fail(const char* op, const Parts&... parts) {
  std::ostringstream message;
  message << op << ": ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

// A shape as Python prints it.
inline std::string text(const int64_t* sizes, size_t count) {
  std::ostringstream out;
  out << "(";
  for (size_t i = 0; i < count; ++i) out << (i ? ", " : "") << sizes[i];
  out << (count == 1 ? ",)" : ")");
  return out.str();
}

inline std::string text(const Sizes& sizes) { return text(sizes.data(), sizes.size()); }

inline std::string text(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Bool:
      return "bool";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::ComplexHalf:
      return "complex32";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    default:
      return torch::headeronly::toString(dtype);
  }
}

inline Sizes sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Sizes(sizes.begin(), sizes.end());
}

inline std::optional<DType> element_type(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return DType::float64;
    case ScalarType::Float:
      return DType::float32;
    case ScalarType::Half:
      return DType::float16;
    case ScalarType::BFloat16:
      return DType::bfloat16;
    case ScalarType::Bool:
      return DType::boolean;
    case ScalarType::Byte:
      return DType::uint8;
    case ScalarType::Char:
      return DType::int8;
    case ScalarType::Short:
      return DType::int16;
    case ScalarType::Int:
      return DType::int32;
    case ScalarType::Long:
      return DType::int64;
    default:
      return std::nullopt;
  }
}

inline bool is_floating(DType dtype) {
  return dtype == DType::float64 || dtype == DType::float32 || dtype == DType::float16 || dtype == DType::bfloat16;
}

// A device as torch prints it.
inline std::string text(const torch::stable::Device& device) {
  using torch::headeronly::DeviceType;
  const char* type = device.type() == DeviceType::CPU    ? "cpu"
                     : device.type() == DeviceType::CUDA ? "cuda"
                     : device.type() == DeviceType::Meta ? "meta"
                                                         : "another type";
  return device.index() < 0 ? type : type + (":" + std::to_string(device.index()));
}

inline void check_device(const char* op, const char* name, const Tensor& tensor, const Tensor& rewards) {
  if (tensor.device() == rewards.device()) return;
  fail(op, name, " must be on the device of rewards, ", text(rewards.device()), ", got ", text(tensor.device()));
}

inline Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// An uninitialised contiguous tensor on the device of `like`.
inline Tensor empty(const Sizes& sizes, ScalarType dtype, const Tensor& like) {
  Sizes strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * (sizes[i] > 1 ? sizes[i] : 1);
  const auto device = like.device();
  AtenTensorHandle handle = nullptr;
  const AOTITorchError failed = aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(device.type())), device.index(), &handle);
  if (failed) throw std::runtime_error("pkpo: out of memory for a tensor of shape " + text(sizes));
  return Tensor(handle);
}

// A string argument as torch hands it over, which must be deleted here. A std::string in its place would lose 32 bytes
// a call: torch's conversion (of 2.13 at least) never deletes the one that it makes.
inline std::string take_string(StringHandle handle) {
  const struct Deleter {
    StringHandle handle;
    ~Deleter() { torch_delete_string(handle); }
  } deleter{handle};
  size_t length = 0;
  const char* data = nullptr;
  if (torch_string_length(handle, &length) || torch_string_c_str(handle, &data)) {
    throw std::runtime_error("pkpo: a string argument cannot be read");
  }
  return std::string(data, length);
}

inline Baseline parse_baseline(const char* op, StringHandle baseline) {
  const std::string name = take_string(baseline);
  if (name == "loo-1") return Baseline::loo_1;
  if (name == "loo") return Baseline::loo;
  if (name == "none") return Baseline::none;
  fail(op, "baseline must be \"none\", \"loo\" or \"loo-1\", got \"", name, "\"");
}

// The checked arguments of one call. Built by dense() or grouped(), in the order of the schema.
class Arguments {
 public:
  // rewards (..., n) with one integer k for every group.
  static Arguments dense(const char* op, const Tensor& rewards, int64_t k, Baseline baseline) {
    Arguments a(op, rewards);
    a.set_dense();
    a.set_k(k, baseline);
    return a;
  }

  // rewards (..., n) with k in a tensor: () or one for every group.
  static Arguments dense(const char* op, const Tensor& rewards, const Tensor& k) {
    Arguments a(op, rewards);
    a.set_dense();
    a.set_k(k);
    return a;
  }

  // rewards (N,), group g being rewards[offsets[g] : offsets[g+1]]; k in a tensor as above.
  static Arguments grouped(const char* op, const Tensor& rewards, const Tensor& offsets, const Tensor& k) {
    Arguments a(op, rewards);
    a.set_grouped(offsets);
    a.set_k(k);
    return a;
  }

  // Several k at once, for every group; each of them as for one.
  static Arguments curve(const char* op, const Tensor& rewards, const Sizes& ks) {
    if (ks.empty()) fail(op, "k must hold at least one integer, got []");
    Arguments a(op, rewards);
    a.set_dense();
    for (int64_t k : ks) a.set_k(k, Baseline::none);
    return a;
  }

  static Arguments curve_grouped(const char* op, const Tensor& rewards, const Tensor& offsets, const Sizes& ks) {
    if (ks.empty()) fail(op, "k must hold at least one integer, got []");
    for (int64_t k : ks) {
      if (k < 1) fail(op, "k must be at least 1, got ", k);
    }
    Arguments a(op, rewards);
    a.set_grouped(offsets);
    a.k_value_ = ks.front();
    return a;
  }

  // A gradient with the shape and type of the op's output.
  Tensor gradient(const Tensor& grad, const Sizes& shape) const {
    if (!is_floating(dtype_)) fail(op_, "rewards must be a floating type to have a gradient, got ", text(scalar_type_));
    if (grad.scalar_type() != scalar_type_) {
      fail(op_, "grad must be ", text(scalar_type_), " like the output, got ", text(grad.scalar_type()));
    }
    check_device(op_, "grad", grad, rewards_);
    if (sizes_of(grad) != shape) fail(op_, "grad must have shape ", text(shape), ", got ", text(sizes_of(grad)));
    return as_contiguous(grad);
  }

  // Points into this object and the tensors it holds.
  Groups groups() const {
    Groups groups;
    groups.count = count_;
    groups.width = width_;
    if (offsets_) groups.offsets = indices(*offsets_, offsets_->stride(0));
    if (k_) {
      groups.k = indices(*k_, k_->dim() == 0 ? 0 : 1);
    } else {
      groups.k = Indices{&k_value_, true, 0};
    }
    return groups;
  }

  const char* op() const { return op_; }
  bool has_tensor_k() const { return k_.has_value(); }
  DType dtype() const { return dtype_; }
  const Tensor& rewards() const { return rewards_; }  // contiguous
  int64_t samples() const { return rewards_.numel(); }
  Sizes sample_sizes() const { return sizes_of(rewards_); }
  const Sizes& group_sizes() const { return group_sizes_; }
  ScalarType result_type() const { return is_floating(dtype_) ? scalar_type_ : ScalarType::Float; }

 private:
  Arguments(const char* op, const Tensor& rewards) : op_(op), rewards_(as_contiguous(rewards)) {
    scalar_type_ = rewards.scalar_type();
    const std::optional<DType> dtype = element_type(scalar_type_);
    if (!dtype) {
      fail(op, "rewards must be float64, float32, float16, bfloat16, bool, uint8, int8, int16, int32 or int64, got ",
           text(scalar_type_));
    }
    dtype_ = *dtype;
  }

  void set_dense() {
    Sizes sizes = sizes_of(rewards_);
    if (sizes.empty()) fail(op_, "rewards must have shape (..., n), got a tensor with no dimension");
    if (sizes.back() < 1) fail(op_, "rewards must have n >= 1 samples a group, got shape ", text(sizes));
    width_ = sizes.back();
    sizes.pop_back();
    count_ = samples() / width_;
    group_sizes_ = std::move(sizes);
  }

  void set_grouped(const Tensor& offsets) {
    if (rewards_.dim() != 1) fail(op_, "rewards must have shape (N,) with offsets, got ", text(sizes_of(rewards_)));
    set_index("offsets", offsets);
    if (offsets.dim() != 1 || offsets.numel() < 1) {
      fail(op_, "offsets must have shape (G + 1,) for G groups, got ", text(sizes_of(offsets)));
    }
    offsets_ = offsets;
    count_ = offsets.numel() - 1;
    group_sizes_ = {count_};
  }

  void set_index(const char* name, const Tensor& tensor) const {
    const ScalarType dtype = tensor.scalar_type();
    if (dtype != ScalarType::Int && dtype != ScalarType::Long) {
      fail(op_, name, " must be int32 or int64, got ", text(dtype));
    }
    check_device(op_, name, tensor, rewards_);
  }

  void set_k(int64_t k, Baseline baseline) {
    if (k < 1 || k > width_) fail(op_, "k must be between 1 and n = ", width_, ", got ", k);
    if (baseline == Baseline::loo && k == width_) {
      fail(op_,
           "baseline \"loo\" compares a sample with k of the n - 1 others, so k must be at most n - 1 = ", width_ - 1,
           ", got ", k);
    }
    k_value_ = k;
  }

  void set_k(const Tensor& k) {
    set_index("k", k);
    if (k.dim() != 0 && sizes_of(k) != group_sizes_) {
      fail(op_, "k must have shape () or one value a group, ", text(group_sizes_), ", got ", text(sizes_of(k)));
    }
    k_ = as_contiguous(k);
  }

  static Indices indices(const Tensor& tensor, int64_t stride) {
    return Indices{tensor.const_data_ptr(), tensor.scalar_type() == ScalarType::Long, stride};
  }

  const char* op_;
  Tensor rewards_;
  ScalarType scalar_type_;
  DType dtype_;
  int64_t count_ = 0, width_ = 0;
  Sizes group_sizes_;
  std::optional<Tensor> offsets_, k_;
  int64_t k_value_ = 0;
};

}  // namespace pkpo
