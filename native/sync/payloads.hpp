// Which payloads are still wanted: the core knows them by number, their owner keeps them.
#pragma once

#include <cstdint>
#include <vector>

namespace mmedge {

using Slot = std::int32_t;
constexpr Slot kNoSlot = -1;

// Counts who refers to each slot. A slot that nobody refers to any more is told once by `drain`, and used
// again after that. Of several holders the last one counts: the queue of an input, a trigger that waits.
class Payloads {
 public:
  // Returns a slot with one holder.
  Slot acquire() {
    if (free_.empty()) {
      holders_.push_back(1);
      return static_cast<Slot>(holders_.size()) - 1;
    }
    const Slot slot = free_.back();
    free_.pop_back();
    holders_[static_cast<std::size_t>(slot)] = 1;
    return slot;
  }
  void retain(Slot slot) {
    if (slot != kNoSlot) ++holders_[static_cast<std::size_t>(slot)];
  }
  void release(Slot slot) {
    if (slot != kNoSlot && --holders_[static_cast<std::size_t>(slot)] == 0) unwanted_.push_back(slot);
  }

  bool unwanted() const { return !unwanted_.empty(); }
  // Calls `tell(slot)` for each slot that nobody wants any more, in the order in which they were left.
  template <typename Tell>
  void drain(Tell tell) {
    for (const Slot slot : unwanted_) {
      tell(slot);
      free_.push_back(slot);
    }
    unwanted_.clear();
  }

 private:
  std::vector<std::int32_t> holders_;
  std::vector<Slot> free_, unwanted_;
};

}  // namespace mmedge
