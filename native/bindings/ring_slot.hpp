// A slot that its reader holds, or knows of: it gives itself back, or copies while it lasts.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>
#include <utility>

#include "slot_ring.hpp"

namespace mmedge::bindings {

struct RingSlot {
  RingSlot(nanobind::object from, std::int64_t number, std::uint64_t holds, bool mine, std::string said)
      : ring(std::move(from)),
        slots(&nanobind::cast<SlotRing&>(ring)),
        index(number),
        seq(holds),
        held(mine),
        record(std::move(said)) {}

  void give_back() {
    if (held) slots->release(index);
    held = false;
  }

  nanobind::object ring;
  SlotRing* slots;
  std::int64_t index;
  std::uint64_t seq;  // of what it holds
  bool held;
  std::string record;  // what its writer says of the frame in it
};

}  // namespace mmedge::bindings
