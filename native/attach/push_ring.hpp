// Where a program puts what it pushes into one input.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "attach/descriptor.hpp"
#include "attach/protocol.hpp"
#include "slot_ring.hpp"

namespace mmedge::attach {

// The pipeline's ring, and the eventfd that wakes it.
class PushRing {
 public:
  PushRing(SlotRing ring, Descriptor wake) : ring_(std::move(ring)), wake_(std::move(wake)) {}

  // How many bytes a push has at most.
  std::size_t room() const { return static_cast<std::size_t>(ring_.slot_bytes()); }

  // Copies `head.bytes` bytes, `room()` at most; false where all slots wait for the pipeline.
  bool push(const Pushed& head, const void* data) {
    const std::int64_t index = ring_.acquire(false);
    if (index < 0) return false;
    if (head.bytes > 0) std::memcpy(ring_.data(index), data, static_cast<std::size_t>(head.bytes));
    ring_.publish(index, reinterpret_cast<const char*>(&head), sizeof head);
    const std::uint64_t one = 1;
    // It fails only where the pipeline has been woken 2^64 times and not looked.
    [[maybe_unused]] const ssize_t n = write(wake_.get(), &one, sizeof one);
    return true;
  }

 private:
  SlotRing ring_;
  Descriptor wake_;
};

}  // namespace mmedge::attach
