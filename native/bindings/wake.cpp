#include <nanobind/stl/optional.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <system_error>

#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

namespace nb = nanobind;
using Clock = std::chrono::steady_clock;

// Whether the descriptor can be read or written now. Asked first, because its flags are shared: another
// process may have made it wait.
bool is_ready(int fd, short what) {
  pollfd asked{fd, what, 0};
  return poll(&asked, 1, 0) > 0 && (asked.revents & what) != 0;
}

bool clear(int fd) {
  eventfd_t value = 0;
  return is_ready(fd, POLLIN) && eventfd_read(fd, &value) == 0 && value > 0;
}

void set(int fd) {
  if (is_ready(fd, POLLOUT)) eventfd_write(fd, 1);
}

// Milliseconds until then, rounded up; -1 for ever.
int left_ms(const std::optional<Clock::time_point>& end) {
  if (!end) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*end - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
}

bool wait(int fd, std::optional<double> timeout_s) {
  std::optional<Clock::time_point> end;
  if (timeout_s)
    end = Clock::now() +
          std::chrono::nanoseconds(static_cast<std::int64_t>(std::clamp(*timeout_s, 0.0, 1e6) * 1e9));
  while (true) {
    pollfd waited{fd, POLLIN, 0};
    int ready = 0, error = 0;
    bool set = false;
    {
      // Read before the GIL is taken again: each time it is given away, a busy thread keeps it for a while.
      const nb::gil_scoped_release unlocked;
      ready = poll(&waited, 1, left_ms(end));
      error = errno;
      set = ready > 0 && clear(fd);
    }
    if (ready >= 0) return set;
    if (error != EINTR) throw std::system_error(error, std::generic_category(), "poll");
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

}  // namespace

void bind_wake(nb::module_& m) {
  // These take a microsecond, and keep the GIL: to get it back can take milliseconds.
  m.def("eventfd_set", &set, nb::arg("fd"),
        "Set an eventfd; one that can be set no more is set already. Never blocks.");
  m.def("eventfd_clear", &clear, nb::arg("fd"), "Clear an eventfd; tell whether it was set. Never blocks.");
  m.def("eventfd_wait", &wait, nb::arg("fd"), nb::arg("timeout_s").none(),
        "Wait for an eventfd, and clear it; False if it was not set in time.");
}

}  // namespace mmedge::bindings
