#include "interpret/regressor.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_regressor(nb::module_& m) {
  nb::class_<Regressor>(m, "Regressor", "One number: clamped, averaged over time, told to six digits.")
      .def(nb::init<std::optional<double>, std::optional<std::pair<double, double>>>(),
           nb::arg("tau_ms").none(), nb::arg("clamp").none())
      .def("read", &Regressor::read, nb::arg("value"), "Take up the number.")
      .def("tell", &Regressor::tell, nb::arg("t_ns"), "Return what was read, averaged.")
      .def("reset", &Regressor::reset, "Forget the past.");
}

}  // namespace mmedge::bindings
