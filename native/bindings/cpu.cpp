#include "cpu.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_cpu(nanobind::module_& m) {
  m.def("cpu_features", &cpu_features, "Names of the instruction sets that this process may use.");
}

}  // namespace mmedge::bindings
