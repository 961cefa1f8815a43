#include "interpret/verifier.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_verifier(nb::module_& m) {
  nb::class_<Verifier>(m, "Verifier", "One score: do the inputs agree?")
      .def(
          "__init__",
          [](Verifier* self, std::optional<double> temperature, std::optional<double> tau_ms, double enter,
             double leave, std::optional<double> hold_ms) {
            new (self) Verifier(temperature, {tau_ms, enter, leave, hold_ms});
          },
          nb::arg("temperature").none(), nb::arg("tau_ms").none(), nb::arg("enter"), nb::arg("leave"),
          nb::arg("hold_ms").none(),
          "Without a ``temperature`` the output is a probability, otherwise a logit.")
      .def("read", &Verifier::read, nb::arg("score"),
           "Take up the score; return the range of one that is no probability, else None.")
      .def("tell", &Verifier::tell, nb::arg("t_ns"),
           "Smooth what was read; return 1 for yes, 0 for no, -1 to abstain, and the probability of yes.")
      .def("reset", &Verifier::reset, "Forget the past.");
}

}  // namespace mmedge::bindings
