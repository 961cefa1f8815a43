#include "bindings/wake.hpp"

#include <nanobind/stl/optional.h>
#include <sys/eventfd.h>

#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

namespace nb = nanobind;

// Whether the descriptor can be read or written now. Asked first, because its flags are shared: another
// process may have made it wait.
bool is_ready(int fd, short what) {
  pollfd asked{fd, what, 0};
  return poll(&asked, 1, 0) > 0 && (asked.revents & what) != 0;
}

}  // namespace

void set_wake(int fd) {
  if (is_ready(fd, POLLOUT)) eventfd_write(fd, 1);
}

bool clear_wake(int fd) {
  eventfd_t value = 0;
  return is_ready(fd, POLLIN) && eventfd_read(fd, &value) == 0 && value > 0;
}

void bind_wake(nb::module_& m) {
  // The first two take a microsecond, and keep the GIL: to get it back can take milliseconds.
  m.def("eventfd_set", &set_wake, nb::arg("fd"),
        "Set an eventfd; one that can be set no more is set already. Never blocks.");
  m.def("eventfd_clear", &clear_wake, nb::arg("fd"),
        "Clear an eventfd; tell whether it was set. Never blocks.");
  m.def(
      "eventfd_wait",
      [](int fd, std::optional<double> timeout_s) { return wait_for_wake(fd, timeout_s, [] {}); },
      nb::arg("fd"), nb::arg("timeout_s").none(),
      "Wait for an eventfd, and clear it; False if it was not set in time.");
}

}  // namespace mmedge::bindings
