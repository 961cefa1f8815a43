#include "interpret/classifier.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "bindings/modules.hpp"
#include "bindings/score_arrays.hpp"

namespace mmedge::bindings {

// These calls last a microsecond, so they keep the GIL: to get it back can take milliseconds.
void bind_classifier(nb::module_& m) {
  nb::class_<Classifier>(m, "Classifier", "Scores of labels: calibrated, smoothed, decided or abstained.")
      .def(
          "__init__",
          [](Classifier* self, std::size_t labels, std::optional<double> temperature, std::size_t top,
             std::optional<double> tau_ms, double enter, double leave, std::optional<double> hold_ms) {
            new (self) Classifier({labels, temperature, top, {tau_ms, enter, leave, hold_ms}});
          },
          nb::arg("labels"), nb::arg("temperature").none(), nb::arg("top"), nb::arg("tau_ms").none(),
          nb::arg("enter"), nb::arg("leave"), nb::arg("hold_ms").none(),
          "Without a ``temperature`` the output is probabilities, otherwise logits.")
      .def(
          "read",
          [](Classifier& self, const Input& output) {
            return with_scores(output, self.labels(),
                               [&self](const auto* scores) { return self.read(scores); });
          },
          nb::arg("output").noconvert(),
          nb::sig("def read(self, output: numpy.typing.NDArray[numpy.float32] | "
                  "numpy.typing.NDArray[numpy.float64]) -> tuple[float, float] | None"),
          "Take up an output of any shape; return the range of scores that are no probabilities, else None.")
      .def("tell", &Classifier::tell, nb::arg("t_ns"),
           "Smooth what was read; return the label's index and score, or -1 and the best score.")
      .def("top", &Classifier::top, "Rank what was told: the best labels and their scores.")
      .def("reset", &Classifier::reset, "Forget the past.");
}

}  // namespace mmedge::bindings
