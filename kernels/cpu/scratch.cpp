#include "scratch.h"

#include <algorithm>
#include <memory>
#include <new>

namespace pkpo::cpu {
namespace {

constexpr size_t kKept = size_t{4} << 20;
constexpr std::align_val_t kAlignment{64};

struct Release {
  void operator()(std::byte* memory) const { ::operator delete(memory, kAlignment); }
};

std::byte* allocate(size_t size) { return static_cast<std::byte*>(::operator new(size, kAlignment)); }

// A thread's block, of which the first `used` bytes are handed out; `wanted` is what the deepest use so far asked for.
struct Block {
  std::unique_ptr<std::byte, Release> memory;
  size_t size = 0, used = 0, wanted = 0;
};

thread_local Block block;

}  // namespace

// In front of memory that was allocated because the block had no room.
struct alignas(64) Scratch::Extra {
  Extra* next;
};

Scratch::Scratch() : mark_(block.used) {
  if (block.used > 0 || block.wanted <= block.size) return;
  const size_t size = std::min(std::max(block.wanted, size_t{64} << 10), kKept);
  if (size <= block.size) return;
  block.memory.reset();
  block.size = 0;
  block.memory.reset(allocate(size));
  block.size = size;
}

Scratch::~Scratch() {
  while (extra_) {
    std::byte* memory = reinterpret_cast<std::byte*>(extra_);
    extra_ = extra_->next;
    Release()(memory);
  }
  block.used = mark_;
}

void* Scratch::take_bytes(size_t size) {
  size = (size + 63) / 64 * 64;
  // `used` counts what would be handed out if the block were large enough.
  const size_t begin = block.used;
  block.used += size;
  block.wanted = std::max(block.wanted, block.used);
  if (block.used <= block.size) return block.memory.get() + begin;
  std::byte* memory = allocate(size + sizeof(Extra));
  extra_ = new (memory) Extra{extra_};
  return memory + sizeof(Extra);
}

}  // namespace pkpo::cpu
