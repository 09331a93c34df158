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

  // While nothing is handed out.
  void grow() {
    const size_t larger = std::min(std::max(wanted, size_t{64} << 10), kKept);
    if (larger <= size) return;
    memory.reset();
    size = 0;
    memory.reset(allocate(larger));
    size = larger;
  }
};

thread_local Block block;

}  // namespace

// In front of memory that was allocated because the block had no room.
struct alignas(64) Scratch::Extra {
  Extra* next;
};

void Scratch::give_back() {
  while (extra_) {
    std::byte* memory = reinterpret_cast<std::byte*>(extra_);
    extra_ = extra_->next;
    Release()(memory);
  }
  block.used = mark_;
}

void* Scratch::take_bytes(size_t size) {
  if (!taken_) {
    if (block.used == 0 && block.wanted > block.size) block.grow();
    mark_ = block.used;
    taken_ = true;
  }
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
