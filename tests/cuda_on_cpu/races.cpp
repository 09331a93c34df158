#include "races.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace cuda_on_cpu {

namespace {

constexpr unsigned kWarp = 32;

bool is_of_block(const Watched& thread, uintptr_t address);

enum Kind { read, write, atomic, kinds };
const char* const kNames[kinds] = {"a read", "a write", "an atomic access"};

// The latest accesses of a kind by a block. Earlier steps of it need not be known: whoever they are not ordered with,
// the later ones are not either.
struct Accesses {
  uint32_t where = 0;  // in the library
  uint32_t block_steps = 0, warp_steps = 0;
  uint32_t lanes = 0;  // of the warp, in its last step
  uint16_t block = 0;
  uint8_t warp = 0;
  bool of_more_warps = false;  // in the block's last step

  bool are_ordered_before(const Watched& thread, uintptr_t address) const {
    if (lanes == 0) return true;
    if (block != static_cast<uint16_t>(thread.block)) {
      return block_steps < thread.seen[block % kAtOnce] || is_of_block(thread, address);
    }
    if (of_more_warps || warp != thread.number / kWarp) return block_steps < thread.block_steps;
    return warp_steps < thread.warp_steps || lanes == 1u << thread.number % kWarp;
  }

  void add(const Watched& thread, uint32_t its_where) {
    const uint8_t its_warp = static_cast<uint8_t>(thread.number / kWarp);
    const uint32_t lane = 1u << thread.number % kWarp;
    const uint16_t its_block = static_cast<uint16_t>(thread.block);
    if (lanes == 0 || block != its_block || block_steps != thread.block_steps) {
      *this = {its_where, thread.block_steps, thread.warp_steps, lane, its_block, its_warp, false};
    } else if (warp != its_warp) {
      of_more_warps = true;
    } else {
      lanes = warp_steps == thread.warp_steps ? lanes | lane : lane;
      warp_steps = thread.warp_steps;
      where = its_where;
    }
  }
};

struct State {
  Accesses of[kinds][kAtOnce];
};

// Four bytes, which most accesses have whole; apart once one had not.
struct Cell {
  State whole;
  std::unique_ptr<std::array<State, 4>> bytes;
};

constexpr uintptr_t kPage = 4096;
struct Page {
  Cell cells[kPage / 4];
};

std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
std::unordered_map<uintptr_t, Steps> released_at;  // by atomics

// Blocks that run at once look at the same. What is done meanwhile is not watched: the linker may take the library's
// templates from where the compiler has them watched.
std::atomic_flag is_busy;
struct Alone {
  Watched*& its_running;
  Watched* const thread;
  explicit Alone(Watched*& of_thread) : its_running(of_thread), thread(of_thread) {
    its_running = nullptr;
    while (is_busy.test_and_set(std::memory_order_acquire)) continue;
  }
  ~Alone() {
    is_busy.clear(std::memory_order_release);
    its_running = thread;
  }
};

uintptr_t address_of_library() {
  static const uintptr_t address = [] {
    Dl_info info;
    dladdr(reinterpret_cast<const void*>(&address_of_library), &info);
    return reinterpret_cast<uintptr_t>(info.dli_fbase);
  }();
  return address;
}

// Shared memory that is not dynamic is memory of the thread in which the block runs.
bool is_of_block(const Watched& thread, uintptr_t address) {
  struct Range {
    uintptr_t library, begin, end;
  };
  static thread_local const Range own = [] {
    Range range{address_of_library(), 0, 0};
    const auto look = [](dl_phdr_info* info, size_t, void* data) {
      Range& its = *static_cast<Range*>(data);
      if (info->dlpi_addr != its.library) return 0;
      for (int i = 0; i < info->dlpi_phnum; ++i) {
        if (info->dlpi_phdr[i].p_type != PT_TLS) continue;
        its.begin = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
        its.end = its.begin + info->dlpi_phdr[i].p_memsz;
      }
      return 1;
    };
    dl_iterate_phdr(look, &range);
    return range;
  }();
  const uintptr_t shared = reinterpret_cast<uintptr_t>(thread.shared);
  return address - shared < thread.shared_size || (address >= own.begin && address < own.end);
}

// Two accesses that nothing orders.
struct Race {
  Watched thread;
  uintptr_t address;
  Kind kind, before_kind;
  uint32_t where;
  Accesses before;
};

[[noreturn]] void stop(const Race& race) {
  Dl_info info;
  dladdr(reinterpret_cast<const void*>(&address_of_library), &info);
  const std::string lines_of = std::string("addr2line -Cpsie ") + info.dli_fname + " ";
  const auto say_where = [&](uint32_t at) {
    char number[32];
    std::snprintf(number, sizeof number, "%#x", at - 1);  // the call, not what follows
    if (std::system((lines_of + number + " >&2").c_str()) != 0) std::fprintf(stderr, "%s\n", number);
  };
  const auto& [thread, address, kind, before_kind, where, before] = race;
  std::fprintf(stderr, "cuda_on_cpu: a race in %s memory, %#lx: %s by thread %u of block %u at ",
               is_of_block(thread, address) ? "shared" : "global", address, kNames[kind], thread.number, thread.block);
  say_where(where);
  std::fprintf(stderr, "is not ordered after %s by warp %u%s of block %u at ", kNames[before_kind], before.warp,
               before.of_more_warps ? " and others" : "", before.block);
  say_where(before.where);
  std::abort();
}

// Who writes again what is there does no harm. That it was so shows as soon as something else happens in the thread in
// which the block runs.
struct Suspect {
  Race race;
  const volatile unsigned char* place;
  unsigned char value;
};
thread_local std::vector<Suspect> suspects;

void settle() {
  std::vector<Suspect>& all = suspects;
  if (all.empty()) return;
  for (const Suspect& suspect : all) {
    if (*suspect.place != suspect.value) stop(suspect.race);
  }
  all.clear();
}

void look_at(State& state, const Watched& thread, uintptr_t address, size_t size, Kind kind, uint32_t where) {
  for (int before = 0; before < kinds; ++before) {
    if (before == kind && kind != write) continue;
    for (const Accesses& accesses : state.of[before]) {
      if (accesses.are_ordered_before(thread, address)) continue;
      const Race race{thread, address, kind, static_cast<Kind>(before), where, accesses};
      if (kind != write || before != write) stop(race);
      for (size_t i = 0; i < size; ++i) {
        const auto* place = reinterpret_cast<const unsigned char*>(address + i);
        suspects.push_back({race, place, *place});
      }
    }
  }
  state.of[kind][thread.block % kAtOnce].add(thread, where);
}

// The pages looked at last.
struct Recent {
  uintptr_t number = 0;
  Page* page = nullptr;
} recent[64];

Page& page_of(uintptr_t address) {
  Recent& its = recent[address / kPage % 64];
  if (!its.page || its.number != address / kPage) {
    std::unique_ptr<Page>& page = pages[address / kPage];
    if (!page) page = std::make_unique<Page>();
    its = {address / kPage, page.get()};
  }
  return *its.page;
}

void watch(const Watched& thread, const void* pointer, size_t size, Kind kind, const void* caller) {
  settle();
  const uintptr_t begin = reinterpret_cast<uintptr_t>(pointer), end = begin + size;
  const uint32_t where = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(caller) - address_of_library());
  for (uintptr_t cell_at = begin / 4 * 4; cell_at < end; cell_at += 4) {
    Cell& cell = page_of(cell_at).cells[cell_at % kPage / 4];
    const bool is_whole = begin <= cell_at && cell_at + 4 <= end;
    if (is_whole && !cell.bytes) {
      look_at(cell.whole, thread, cell_at, 4, kind, where);
      continue;
    }
    if (!cell.bytes) {
      cell.bytes = std::make_unique<std::array<State, 4>>();
      cell.bytes->fill(cell.whole);
    }
    for (uintptr_t i = 0; i < 4; ++i) {
      if (begin <= cell_at + i && cell_at + i < end) look_at((*cell.bytes)[i], thread, cell_at + i, 1, kind, where);
    }
  }
}

// What an atomic access finds there; what it leaves, if it writes.
void find(Watched& thread, const volatile void* address, bool writes) {
  Steps& there = released_at[reinterpret_cast<uintptr_t>(address)];
  if (writes) join(there, thread.released);
  join(thread.found, there);
}

void fence() {
  if (!running) return;
  join(running->seen, running->found);
  running->released = running->seen;
  running->released[running->block % kAtOnce] = running->block_steps;
}

template <class T>
T fetch_add(volatile T* address, T value, const void* caller) {
  Watched*& its_running = running;
  if (!its_running) return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
  const Alone alone(its_running);
  watch(*alone.thread, const_cast<T*>(address), sizeof(T), atomic, caller);
  find(*alone.thread, address, true);
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

void access(const volatile void* address, size_t size, Kind kind, const void* caller) {
  Watched*& its_running = running;  // found once, which takes a while
  if (!its_running || its_running->is_own(address)) return;
  const Alone alone(its_running);
  watch(*alone.thread, const_cast<const void*>(address), size, kind, caller);
  if (kind == atomic) find(*alone.thread, address, false);
}

}  // namespace

void watch_next_launch() {
  pages.clear();
  for (Recent& its : recent) its = {};
  released_at.clear();
}
void watch_end_of_block() { settle(); }
void watch_copy(void* to, const void* from, size_t size, const void* caller) {
  access(from, size, read, caller);
  access(to, size, write, caller);
}

}  // namespace cuda_on_cpu

// What the compiler calls. Volatile reads are for what others write meanwhile.
#define WATCH(name, size, kind) \
  void name(void* address) { cuda_on_cpu::access(address, size, cuda_on_cpu::kind, __builtin_return_address(0)); }
#define WATCH_ALL(size)                            \
  WATCH(__tsan_read##size, size, read)             \
  WATCH(__tsan_write##size, size, write)           \
  WATCH(__tsan_unaligned_read##size, size, read)   \
  WATCH(__tsan_unaligned_write##size, size, write) \
  WATCH(__tsan_volatile_read##size, size, atomic)

extern "C" {
WATCH_ALL(1)
WATCH_ALL(2)
WATCH_ALL(4)
WATCH_ALL(8)
WATCH_ALL(16)
void __tsan_read_range(void* address, size_t size) {
  cuda_on_cpu::access(address, size, cuda_on_cpu::read, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t size) {
  cuda_on_cpu::access(address, size, cuda_on_cpu::write, __builtin_return_address(0));
}
int __tsan_atomic32_fetch_add(volatile int* address, int value, int) {
  return cuda_on_cpu::fetch_add(address, value, __builtin_return_address(0));
}
long __tsan_atomic64_fetch_add(volatile long* address, long value, int) {
  return cuda_on_cpu::fetch_add(address, value, __builtin_return_address(0));
}
void __tsan_atomic_thread_fence(int) {
  cuda_on_cpu::fence();
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
