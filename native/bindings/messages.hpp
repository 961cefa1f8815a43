// A message into a ring of slots.
#pragma once

#include <string_view>

#include "slot_ring.hpp"

namespace mmedge::bindings {

// Publishes a message and sets the eventfd of its reader; false if no slot is free. With `steal`, the oldest
// that nobody has taken is overwritten instead. Never blocks. Throws std::invalid_argument if it does not
// fit.
bool put_message(SlotRing& ring, int wake, std::string_view message, bool steal);

}  // namespace mmedge::bindings
