// Waiting for an eventfd without the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <system_error>

namespace mmedge::bindings {

// Never blocks; one that can be set no more is set already.
void set_wake(int fd);
// Never blocks; tells whether it was set.
bool clear_wake(int fd);

// Waits until the eventfd is set, clears it, and calls `then` before the GIL is taken again: each time it is
// given away, a busy thread keeps it for a while. False if it was not set in time.
template <typename Then>
bool wait_for_wake(int fd, std::optional<double> timeout_s, const Then& then) {
  namespace nb = nanobind;
  using Clock = std::chrono::steady_clock;
  std::optional<Clock::time_point> end;
  if (timeout_s)
    end = Clock::now() +
          std::chrono::nanoseconds(static_cast<std::int64_t>(std::clamp(*timeout_s, 0.0, 1e6) * 1e9));
  while (true) {
    pollfd waited{fd, POLLIN, 0};
    int ready = 0, error = 0;
    bool set = false;
    {
      const nb::gil_scoped_release unlocked;
      int left_ms = -1;  // for ever
      if (end) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(*end - Clock::now()).count();
        left_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
      }
      ready = poll(&waited, 1, left_ms);
      error = errno;
      set = ready > 0 && clear_wake(fd);
      if (set) then();
    }
    if (ready >= 0) return set;
    if (error != EINTR) throw std::system_error(error, std::generic_category(), "poll");
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

}  // namespace mmedge::bindings
