#include "lifeline.hpp"

#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_lifeline(nanobind::module_& m) {
  m.def("end_with", &end_with, nanobind::arg("pidfd"),
        "Have this process killed when the one behind ``pidfd`` ends or has ended; owns the descriptor.\n\n"
        "Raises:\n    OSError: If no thread can be started.");
}

}  // namespace mmedge::bindings
