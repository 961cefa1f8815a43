// Messages of any length through a ring of slots, and the eventfd that wakes their reader: one call each.
#include "bindings/messages.hpp"

#include <nanobind/stl/optional.h>

#include <cstring>
#include <optional>
#include <string>

#include "bindings/modules.hpp"
#include "bindings/prompt.hpp"
#include "bindings/wake.hpp"
#include "slot_ring.hpp"

namespace mmedge::bindings {
namespace {

namespace nb = nanobind;

struct Next {
  std::string message;
  std::int64_t passed_over = 0;
  bool found = false;

  // The other process may have written anything: a length is one that fits.
  void take(SlotRing& ring, bool newest) {
    while (const std::optional<SlotRing::Taken> taken = ring.take()) {
      std::int64_t n = 0;
      if (taken->header.size() == sizeof n) std::memcpy(&n, taken->header.data(), sizeof n);
      passed_over += found;
      found = true;
      message.assign(reinterpret_cast<const char*>(ring.data(taken->index)),
                     static_cast<std::size_t>(std::clamp<std::int64_t>(n, 0, ring.slot_bytes())));
      ring.release(taken->index);
      if (!newest) return;
    }
  }
};

nb::object next(SlotRing& ring, int fd, std::optional<double> timeout_s, bool newest) {
  Next next;
  next.take(ring, newest);
  if (!next.found && timeout_s != 0.0) {
    const PromptTurns prompt;
    wait_for_wake(fd, timeout_s, [&] { next.take(ring, newest); });
  }
  if (!next.found) return nb::none();
  return nb::make_tuple(nb::bytes(next.message.data(), next.message.size()), next.passed_over);
}

}  // namespace

bool put_message(SlotRing& ring, int wake, std::string_view message, bool steal) {
  const auto n = static_cast<std::int64_t>(message.size());
  if (n > ring.slot_bytes()) throw std::invalid_argument("a message must fit into a slot of its ring");
  const std::int64_t index = ring.acquire(steal);
  if (index < 0) return false;
  std::memcpy(ring.data(index), message.data(), message.size());
  ring.publish(index, reinterpret_cast<const char*>(&n), sizeof n);
  set_wake(wake);
  return true;
}

void bind_messages(nb::module_& m) {
  m.def(
      "put_message",
      [](SlotRing& ring, int fd, const nb::bytes& message, bool steal) {
        return put_message(ring, fd, {message.c_str(), message.size()}, steal);
      },
      nb::arg("ring"), nb::arg("fd"), nb::arg("message"), nb::arg("steal"),
      "Publish a message and set the eventfd of its reader; False if no slot is free.\n\n"
      "With ``steal``, the oldest that nobody has taken is overwritten instead. Never blocks.");
  m.def(
      "next_message", &next, nb::arg("ring"), nb::arg("fd"), nb::arg("timeout_s").none(), nb::arg("newest"),
      nb::sig("def next_message(ring: SlotRing, fd: int, timeout_s: float | None, newest: bool) -> "
              "tuple[bytes, int] | None"),
      "Return the next message, or the ``newest``, and how many were passed over for it.\n\n"
      "Waits until the eventfd is set, once, if none is there; None if then none has come. While it waits,\n"
      "Python's threads take turns every 50 us, unless the program has set an interval itself.");
}

}  // namespace mmedge::bindings
