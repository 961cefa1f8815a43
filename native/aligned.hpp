// Vectors whose memory begins with a cache line: loads of 32 or 64 bytes out of them never meet two lines.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace mmedge {

template <typename T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <typename Other>
  LineAllocator(const LineAllocator<Other>&) {}  // NOLINT: allocators convert
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* memory, std::size_t) { ::operator delete(memory, kLine); }
  template <typename Other>
  bool operator==(const LineAllocator<Other>&) const {
    return true;
  }
  template <typename Other>
  bool operator!=(const LineAllocator<Other>&) const {
    return false;
  }
};

template <typename T>
using LineVector = std::vector<T, LineAllocator<T>>;

}  // namespace mmedge
