// The ops on CUDA tensors: arguments checked, output made, kernels enqueued on torch's current stream. A shared object
// of its own, opened where torch has CUDA; it registers nothing until it is asked to (pkpo_cuda_register), so that a
// library whose code the driver or the device cannot run leaves its ops to the next backend.
//
// What offsets and k hold on the device is not looked at here, which would wait for the device: offsets outside of the
// rewards are cut to them and k is clamped; offsets that fall are the caller's mistake, and give results without
// meaning.

#include "cuda/pkpo.h"
#include "ops.h"

#if defined(PKPO_CUDA_ON_CPU)
#define PKPO_NAMESPACE "pkpo_cuda_on_cpu"
#define PKPO_DEVICE "CPU"
#else
#define PKPO_NAMESPACE "pkpo"
#define PKPO_DEVICE "CUDA"
#include <dlfcn.h>
#endif

namespace pkpo {
namespace {

#if !defined(PKPO_CUDA_ON_CPU)
// From torch's CUDA library, which is loaded where tensors are on a GPU. Not linked to, so that this library can be
// opened without it; and looked for in it by name, since torch makes its symbols known to nobody else. Null where there
// is none.
using CurrentStream = AOTITorchError (*)(int32_t device, void** stream);
CurrentStream current_stream() {
  static const CurrentStream found = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<CurrentStream>(
        dlsym(library ? library : RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  }();
  return found;
}
#endif

// The device of a tensor made the current one, and its current stream.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& tensor) {
#if !defined(PKPO_CUDA_ON_CPU)
    const int32_t device = tensor.device().index();
    if (aoti_torch_create_device_guard(device, &guard_) || current_stream()(device, &stream_)) {
      throw std::runtime_error("pkpo: the current stream of " + text(tensor.device()) + " cannot be found");
    }
#else
    (void)tensor;
#endif
  }
  ~OnDevice() {
#if !defined(PKPO_CUDA_ON_CPU)
    if (guard_) aoti_torch_delete_device_guard(guard_);
#endif
  }
  OnDevice(const OnDevice&) = delete;

  void* stream() const { return stream_; }

 private:
#if !defined(PKPO_CUDA_ON_CPU)
  DeviceGuardHandle guard_ = nullptr;
#endif
  void* stream_ = nullptr;
};

cuda::Batch batch_of(const Arguments& arguments) {
  const Groups groups = arguments.groups();
  cuda::Batch batch;
  batch.count = groups.count;
  batch.width = groups.width;
  batch.samples = arguments.samples();
  if (batch.width > 0xffffffff) fail(arguments.op(), "n must be at most 2**32 - 1, got ", batch.width);
  const auto indices = [](const Indices& from) { return cuda::Indices{from.data, from.is_int64, from.stride}; };
  batch.offsets = indices(groups.offsets);
  if (arguments.has_tensor_k()) {
    batch.k = indices(groups.k);
  } else {
    batch.k_value = groups.k[0];
  }
  batch.dtype = arguments.dtype();
  batch.rewards = arguments.rewards().const_data_ptr();
  return batch;
}

void enqueue(const Arguments& arguments, const OnDevice& device, const cuda::Call& call) {
  const size_t bytes = cuda::workspace_bytes(call);
  std::optional<Tensor> workspace;
  if (bytes > 0) workspace = empty({static_cast<int64_t>(bytes)}, ScalarType::Byte, arguments.rewards());
  const char* error = cuda::run(call, workspace ? workspace->mutable_data_ptr() : nullptr, device.stream());
  if (error) throw std::runtime_error(std::string(arguments.op()) + ": CUDA: " + error);
}

Tensor run(const Arguments& arguments, cuda::Op op, Form form, const Tensor* grad) {
  const OnDevice device(arguments.rewards());
  cuda::Call call;
  call.batch = batch_of(arguments);
  call.op = op;
  call.form = form;
  const bool per_group = op == cuda::Op::max_at_k;
  Tensor out = empty(per_group ? arguments.group_sizes() : arguments.sample_sizes(), arguments.result_type(),
                     arguments.rewards());
  if (grad) call.grad = grad->const_data_ptr();
  call.out = out.mutable_data_ptr();
  enqueue(arguments, device, call);
  return out;
}

struct CudaBackend {
  static Tensor transform(const Arguments& arguments, Baseline baseline) {
    return run(arguments, cuda::Op::transform, form_of(baseline), nullptr);
  }

  static Tensor transform_backward(const Arguments& arguments, Baseline baseline, const Tensor& grad) {
    const Tensor gradient = arguments.gradient(grad, arguments.sample_sizes());
    return run(arguments, cuda::Op::backward, form_of(baseline), &gradient);
  }

  static Tensor max_at_k(const Arguments& arguments) {
    return run(arguments, cuda::Op::max_at_k, Form::max_at_k, nullptr);
  }

  static Tensor max_at_k_backward(const Arguments& arguments, const Tensor& grad) {
    const Tensor gradient = arguments.gradient(grad, arguments.group_sizes());
    return run(arguments, cuda::Op::backward, Form::max_at_k, &gradient);
  }

  // A launch for each k.
  static Tensor max_at_k_curve(const Arguments& arguments, const Sizes& ks) {
    const OnDevice device(arguments.rewards());
    Sizes sizes = arguments.group_sizes();
    sizes.push_back(static_cast<int64_t>(ks.size()));
    Tensor out = empty(sizes, arguments.result_type(), arguments.rewards());
    const int64_t bytes = arguments.result_type() == ScalarType::Double  ? 8
                          : arguments.result_type() == ScalarType::Float ? 4
                                                                         : 2;
    cuda::Call call;
    call.batch = batch_of(arguments);
    call.op = cuda::Op::max_at_k;
    call.form = Form::max_at_k;
    call.stride = sizes.back();
    for (size_t j = 0; j < ks.size(); ++j) {
      call.batch.k_value = ks[j];
      call.out = static_cast<char*>(out.mutable_data_ptr()) + bytes * static_cast<int64_t>(j);
      enqueue(arguments, device, call);
    }
    return out;
  }
};

}  // namespace
}  // namespace pkpo

#define PKPO_EXPORT extern "C" __attribute__((visibility("default")))

// Null where the kernels run on the current device, else why not.
PKPO_EXPORT const char* pkpo_cuda_problem() {
  const char* problem = pkpo::cuda::why_unusable();
#if !defined(PKPO_CUDA_ON_CPU)
  if (!problem && !pkpo::current_stream()) problem = "torch's CUDA library does not tell the current stream";
#endif
  return problem;
}

// From now on they serve its tensors.
PKPO_EXPORT void pkpo_cuda_register() {
  using torch::stable::detail::StableLibrary;
  using torch::stable::detail::StableTorchLibraryInit;
  static const StableTorchLibraryInit once(StableLibrary::Kind::IMPL, &pkpo::Ops<pkpo::CudaBackend>::implement,
                                           PKPO_NAMESPACE, PKPO_DEVICE, __FILE__, __LINE__);
}
