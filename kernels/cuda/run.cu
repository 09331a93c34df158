// Which kernels a call needs. Where groups differ in size their sizes are known on the device alone: then there is a
// launch for each kind that a batch of so many samples may have, and each leaves the others' groups alone. A batch of
// training takes three: groups that share warps, groups that take a block, larger ones.

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>

#include "cuda/launches.h"

namespace pkpo::cuda {
namespace {

// A group may have so many samples.
int64_t largest_group(const Batch& batch) { return batch.offsets.data ? batch.samples : batch.width; }

// The most samples of a group that shares a warp with others, and of one that takes a block.
int64_t largest_small(const Call& call) { return is_light(call) ? 512 : 256; }
int64_t smallest_block(const Call& call) { return is_light(call) ? 1024 : 512; }
int64_t largest_block(const Call& call) { return is_light(call) ? 8192 : 4096; }

// Groups of `smallest` to `most` samples, a block each. The room of a kernel is that of the groups it takes, but for a
// factor of two; or all take the kernel of the largest, where so few groups may need one that each has a block at once.
cudaError_t run_blocks(const Call& call, int64_t smallest, int64_t most, Stream stream) {
  const Batch& batch = call.batch;
  bool fit = true;
  cudaError_t error = cudaSuccess;
  if (batch.offsets.data) error = fit_in_blocks(call, most, batch.samples / smallest, &fit);
  for (int64_t room = fit ? most : smallest_block(call); error == cudaSuccess && smallest <= most; room *= 2) {
    if (room < smallest) continue;
    error = run_block(call, room, static_cast<uint32_t>(smallest), stream);
    smallest = room + 1;
  }
  return error;
}

}  // namespace

size_t workspace_bytes(const Call& call) {
  const Batch& batch = call.batch;
  const int64_t largest = largest_group(batch), in_block = largest_block(call);
  if (batch.count == 0 || largest <= in_block) return 0;
  bool in_two_turns = false;
  if (!batch.offsets.data && largest <= 2 * in_block && fit_in_two_turns(call, &in_two_turns) == cudaSuccess &&
      in_two_turns) {
    return 0;
  }
  return large_workspace(call, static_cast<uint32_t>(in_block + 1));
}

const char* run(const Call& call, void* workspace, void* stream_pointer) {
  const Batch& batch = call.batch;
  const Stream stream = static_cast<Stream>(stream_pointer);
  if (batch.count == 0) return nullptr;
  const int64_t largest = largest_group(batch), in_block = largest_block(call), most = std::min(largest, in_block);
  const uint32_t smallest = static_cast<uint32_t>(in_block + 1);  // of large groups
  const bool ragged = batch.offsets.data != nullptr;
  cudaError_t error = cudaSuccess;
  int64_t done = 0;  // groups of up to so many samples are
  if (ragged) {
    done = ragged_room(call);
    error = run_ragged(call, counter_at_once(call, smallest, workspace), stream);
  } else if (largest <= largest_small(call)) {
    done = largest;
    bool is_done = false;
    error = run_quick(call, stream, &is_done);
    if (error == cudaSuccess && !is_done) error = is_tiny(call) ? run_tiny(call, stream) : run_small(call, stream);
  } else if (largest <= 1024 && is_usual(call)) {
    // A warp takes fewer instructions for a group than a block of two, but longer: not where all groups are done at
    // once.
    bool fit = false;
    error = fit_in_blocks(call, largest, batch.count, &fit);
    if (error == cudaSuccess && !fit) {
      done = largest;
      error = run_small_largest(call, stream);
    }
  }
  if (error == cudaSuccess && done < most && (ragged || largest <= in_block)) {
    error = run_blocks(call, done + 1, most, stream);
  }
  if (error == cudaSuccess && largest > in_block && !workspace) {
    error = run_two_turns(call, stream);
  } else if (error == cudaSuccess && largest > in_block) {
    bool is_done = false;
    error = run_large_at_once(call, smallest, workspace, stream, &is_done);
    if (error == cudaSuccess && !is_done) error = run_large(call, smallest, workspace, stream);
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Asks the driver alone: no context is made, and no memory taken, on a device that may not be used at all.
const char* why_unusable() {
  int devices = 0;
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices == 0) error = cudaErrorNoDevice;
  if (error != cudaSuccess) return cudaGetErrorString(error);
#if !defined(PKPO_CUDA_ON_CPU)
  static std::string problem;
  problem = std::string("it has code for ") + PKPO_CUDA_ARCHS + ", this machine has";
  for (int device = 0; device < devices; ++device) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    // Code for 8.6 runs on 8.6 and 8.9; PTX for 8.6 on all that came later.
    std::istringstream archs(PKPO_CUDA_ARCHS);
    for (std::string arch; archs >> arch;) {
      int its_major = 0, its_minor = 0;
      if (std::sscanf(arch.c_str(), "%d.%d", &its_major, &its_minor) != 2) continue;
      const bool has_ptx = arch.find("+PTX") != std::string::npos;
      if (its_major == major && its_minor <= minor) return nullptr;
      if (has_ptx && its_major < major) return nullptr;
    }
    problem += " " + std::to_string(major) + "." + std::to_string(minor);
  }
  return problem.c_str();
#else
  return nullptr;
#endif
}

}  // namespace pkpo::cuda
