#include "cuda_on_cpu.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <mutex>
#include <thread>

#include "races.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {

thread_local dim3 thread_index, block_index, block_size, grid_size;
thread_local Watched* running = nullptr;

namespace {

constexpr int kWarp = 32;
constexpr size_t kStack = size_t{1} << 18;

// Where a fiber goes on. On x86-64 a switch is a dozen instructions; elsewhere it is the C library's.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
};

#if defined(__x86_64__)
extern "C" void cuda_on_cpu_switch(void** from, void* to);
asm(R"(
.text
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#endif

struct Fiber {
  Context context;
  char* stack = nullptr;
  bool done = false;
  uint64_t warp_steps = 0, block_steps = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  Watched watched;
};

struct Warp {
  uint64_t arrived = 0;
  uint64_t given[2][kWarp];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  uint64_t arrived = 0;
  int sum[2] = {0, 0};
  Steps seen[2];
  unsigned threads = 0, current = 0, running = 0;
  uint64_t progress = 0;
  const std::function<void()>* body = nullptr;
  Context main;
  void* main_fake_stack = nullptr;
  const void* main_stack = nullptr;
  size_t main_size = 0;
  std::unique_ptr<unsigned char[]> dynamic;
  size_t dynamic_size = 0;
};

Block blocks[kAtOnce];
// A block is its thread's: fibers never leave it.
thread_local Block* block = &blocks[0];

[[noreturn]] void stop(const char* why) {
  std::fprintf(stderr, "cuda_on_cpu: %s (block %u, thread %u of %u)\n", why, block_index.x, block->current,
               block->threads);
  std::abort();
}

void enter_fiber(Fiber& fiber) {
  (void)fiber;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &block->main_stack, &block->main_size);
#endif
}

void main_of_fiber() {
  Fiber& fiber = block->fibers[block->current];
  enter_fiber(fiber);
  (*block->body)();
  fiber.done = true;
  --block->running;
  ++block->progress;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, block->main_stack, block->main_size);
#endif
#if defined(__x86_64__)
  void* unused;
  cuda_on_cpu_switch(&unused, block->main.stack_pointer);
#else
  setcontext(&block->main.context);
#endif
  std::abort();
}

void start(Fiber& fiber) {
  if (!fiber.stack) {
    void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) stop("no memory for a stack");
    fiber.stack = static_cast<char*>(memory);
  }
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, kStack);  // whoever had it before never returned from its last frame
#endif
  fiber.done = false;
  fiber.warp_steps = fiber.block_steps = 0;
  fiber.fake_stack = nullptr;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(fiber.stack + kStack);
  *--top = nullptr;  // the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(&main_of_fiber);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.context.stack_pointer = top;
#else
  getcontext(&fiber.context.context);
  fiber.context.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.context.uc_stack.ss_size = kStack;
  fiber.context.context.uc_link = nullptr;
  makecontext(&fiber.context.context, &main_of_fiber, 0);
#endif
}

// From the scheduler to a fiber, until that waits or ends.
void resume(unsigned thread) {
  block->current = thread;
  thread_index.x = thread;
  Fiber& fiber = block->fibers[thread];
  running = &fiber.watched;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&block->main_fake_stack, fiber.stack, kStack);
#endif
#if defined(__x86_64__)
  cuda_on_cpu_switch(&block->main.stack_pointer, fiber.context.stack_pointer);
#else
  swapcontext(&block->main.context, &fiber.context.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(block->main_fake_stack, nullptr, nullptr);
#endif
  running = nullptr;
}

// From a fiber to the scheduler.
void yield() {
  Fiber& fiber = block->fibers[block->current];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.fake_stack, block->main_stack, block->main_size);
#endif
#if defined(__x86_64__)
  cuda_on_cpu_switch(&fiber.context.stack_pointer, block->main.stack_pointer);
#else
  swapcontext(&fiber.context.context, &block->main.context);
#endif
  enter_fiber(fiber);
}

void run_block() {
  block->warps.assign((block->threads + kWarp - 1) / kWarp, Warp{});
  block->arrived = 0;
  block->sum[0] = block->sum[1] = 0;
  block->running = block->threads;
  for (unsigned t = 0; t < block->threads; ++t) {
    Fiber& fiber = block->fibers[t];
    start(fiber);
    fiber.watched = {block_index.x, t, fiber.stack, kStack, block->dynamic.get(), block->dynamic_size};
  }
  // A warp runs as far as it can before the next one does, backwards every other round: no order between warps may
  // matter.
  const unsigned warps = static_cast<unsigned>(block->warps.size());
  for (bool backwards = false; block->running > 0; backwards = !backwards) {
    const uint64_t before = block->progress;
    for (unsigned w = 0; w < warps; ++w) {
      const unsigned warp = backwards ? warps - 1 - w : w;
      uint64_t last;
      do {
        last = block->progress;
        for (unsigned lane = 0; lane < kWarp && warp * kWarp + lane < block->threads; ++lane) {
          if (!block->fibers[warp * kWarp + lane].done) resume(warp * kWarp + lane);
        }
      } while (block->progress != last);
    }
    if (block->progress == before && block->running > 0) stop("threads wait for others that never come");
  }
}

}  // namespace

const uint64_t* gather_in_warp(uint64_t value) {
  Fiber& fiber = block->fibers[block->current];
  Warp& warp = block->warps[block->current / kWarp];
  const unsigned lane = block->current % kWarp;
  uint64_t* given = warp.given[fiber.warp_steps % 2];
  given[lane] = value;
  ++warp.arrived;
  ++block->progress;
  const uint64_t wanted = ++fiber.warp_steps * kWarp;
  while (warp.arrived < wanted) yield();
  return given;
}

void wait_for_warp() {
  gather_in_warp(0);
  block->fibers[block->current].watched.pass_warp_barrier();
}

int sum_in_block(int value) {
  Fiber& fiber = block->fibers[block->current];
  int& sum = block->sum[fiber.block_steps % 2];
  Steps& seen = block->seen[fiber.block_steps % 2];
  if (block->arrived == fiber.block_steps * block->threads) sum = 0, seen = {};  // the first to come
  sum += value;
  join(seen, fiber.watched.seen);
  ++block->arrived;
  ++block->progress;
  const uint64_t wanted = ++fiber.block_steps * block->threads;
  while (block->arrived < wanted) yield();
  fiber.watched.pass_block_barrier(seen);
  return sum;
}

void wait_for_block() { sum_in_block(0); }

unsigned char* dynamic_shared() { return block->dynamic.get(); }

// Copies are made as late as they may be; until then there is noise, from as early as they may be made.
namespace {
thread_local std::vector<std::pair<void*, const void*>> copies_of_thread[1024];
}
void copy_later(void* to, const void* from) {
  watch_copy(to, from, 16, __builtin_return_address(0));
  running = nullptr;
  std::memset(to, 0x55, 16);
  copies_of_thread[thread_index.x].emplace_back(to, from);
  running = &block->fibers[block->current].watched;
}
void copy_now() {
  for (const auto& [to, from] : copies_of_thread[thread_index.x]) {
    watch_copy(to, from, 16, __builtin_return_address(0));
    std::memcpy(to, from, 16);
  }
  copies_of_thread[thread_index.x].clear();
}

namespace {

std::mutex one_at_a_time;
int launches = 0;

// The blocks first, first + step and so on, one after another.
void run_blocks(unsigned first, unsigned step, unsigned count, unsigned threads, size_t shared,
                const std::function<void()>& body) {
  if (threads % kWarp != 0 || threads > 1024) stop("a block must have whole warps, and at most 1024 threads");
  if (block->fibers.size() < threads) block->fibers.resize(threads);
  block->threads = threads;
  block->body = &body;
  block_size.x = threads;
  grid_size.x = count;
  for (unsigned b = first; b < count; b += step) {
    block->dynamic.reset(new unsigned char[shared]);
    block->dynamic_size = shared;
    std::memset(block->dynamic.get(), 0xa5, shared);
    block_index.x = b;
    run_block();
    watch_end_of_block();
  }
  block->dynamic.reset();
}

std::atomic<bool> any_left;  // of the blocks that run at once

}  // namespace

void run(unsigned count, unsigned threads, size_t shared, const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  ++launches;
  watch_next_launch();
  run_blocks(0, 1, count, threads, shared, body);
}

void run_at_once(unsigned wanted, unsigned threads, size_t shared, const std::function<void()>& body) {
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  ++launches;
  watch_next_launch();
#if defined(__SANITIZE_ADDRESS__)
  const unsigned most = 1;
#else
  const unsigned most = kAtOnce;
#endif
  const unsigned count = wanted < most ? wanted : most;
  any_left = false;
  std::vector<std::thread> all;
  for (unsigned b = 0; b < count; ++b) {
    all.emplace_back([&, b] {
      block = &blocks[b];
      run_blocks(b, count, count, threads, shared, body);
      any_left = true;
    });
  }
  for (std::thread& thread : all) thread.join();
}

void let_other_blocks_run() {
  // One that has left may have come where this one waits just before.
  static thread_local int waits = 0;
  if (any_left && ++waits > 1'000'000) stop("a block waits for one that has left");
  std::this_thread::yield();
}

}  // namespace cuda_on_cpu

// Whether small batches fit the device from now on, whether its blocks wait for each other, and whether a block has as
// little shared memory as on the smallest GPUs.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_fits(int most) { pkpo::cuda::most_that_fit = most; }
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_cooperates(bool does) {
  pkpo::cuda::cooperates = does;
}
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_has_little_shared_memory(bool has) {
  pkpo::cuda::has_little_shared_memory = has;
}

// How many there were.
extern "C" __attribute__((visibility("default"))) int cuda_on_cpu_launches() { return cuda_on_cpu::launches; }
