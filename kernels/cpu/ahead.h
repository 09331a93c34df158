// Memory asked for before it is needed. A block of groups is worked on for so long that the processor's own prefetchers
// lose track of the rows, and they stop at the end of a page; a batch that the cache does not hold would be waited for.
#pragma once

#include <cstdint>

namespace pkpo::cpu {
namespace {

// An address that is nobody's does no harm. The empty statement is an effect: a function that asks, and does nothing
// else, has none that GCC knows of, so that it leaves out the calls.
inline void ask_for(uintptr_t address) {
  __builtin_prefetch(reinterpret_cast<const void*>(address));
  asm volatile("" : : "r"(address));
}

// Rows that are needed when those of a block are done: asked for bit by bit, a column's worth with every column of the
// block, since other loads would have to wait behind the requests for all of them.
class NextBlock {
 public:
  NextBlock() {
    for (Rows& rows : rows_) rows = {reinterpret_cast<uintptr_t>(this), 0};  // none
  }

  // Of an array, rows that lie one after another: `lanes` of them.
  template <class T>
  void add(const T* begin, int lanes) {
    rows_[count_++] = {reinterpret_cast<uintptr_t>(begin), sizeof(T) * static_cast<uintptr_t>(lanes)};
  }

  void ask(int64_t column) const {
    for (const Rows& rows : rows_) ask_for(rows.begin + rows.bytes * static_cast<uintptr_t>(column));
  }

 private:
  struct Rows {
    uintptr_t begin, bytes;  // bytes: of a column
  };
  Rows rows_[3];  // rewards, results, incoming gradients
  int count_ = 0;
};

// The same for rows of few samples, all at once: what lies a page behind these.
template <class T>
void ask_for_page_behind(const T* from, int64_t count) {
  constexpr uintptr_t kPage = 4096, kLine = 64;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(from) + kPage;
  for (uintptr_t i = 0; i < sizeof(T) * static_cast<uintptr_t>(count); i += kLine) ask_for(begin + i);
}

}  // namespace
}  // namespace pkpo::cpu
