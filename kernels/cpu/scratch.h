// Memory for the duration of a call. Each thread keeps one block of up to 4 MiB and hands out pieces of it, so that a
// call in a training loop neither allocates nor touches fresh pages; what does not fit is allocated and given back.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pkpo::cpu {

// Pieces are taken one after another and all given back together. Scopes may nest; while an inner one holds memory, an
// outer one must not take any. One that takes none costs nothing.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() {
    if (taken_) give_back();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Uninitialised, aligned to 64 bytes.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  struct Extra;
  void* take_bytes(size_t size);
  void give_back();

  bool taken_ = false;
  size_t mark_ = 0;
  Extra* extra_ = nullptr;
};

}  // namespace pkpo::cpu
