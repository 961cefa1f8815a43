#include "interpret/smoother.hpp"

#include <nanobind/stl/optional.h>

#include "bindings/modules.hpp"
#include "bindings/score_arrays.hpp"

namespace mmedge::bindings {
namespace {

std::optional<int> found(int label) { return label < 0 ? std::nullopt : std::optional<int>(label); }

}  // namespace

void bind_smoother(nb::module_& m) {
  nb::class_<Smoother>(m, "Smoother",
                       "The smoothing of one task: of its scores, of the choice of a label, of the label.")
      .def(
          "__init__",
          [](Smoother* self, std::size_t size, std::optional<double> tau_ms, double enter, double leave,
             std::optional<double> hold_ms) {
            if (size < 1) throw std::invalid_argument("there must be at least one score");
            new (self) Smoother({tau_ms, enter, leave, hold_ms}, size);
          },
          nb::arg("size"), nb::arg("tau_ms").none(), nb::arg("enter"), nb::arg("leave"),
          nb::arg("hold_ms").none())
      .def(
          "choose",
          [](Smoother& self, const Output& scores, std::int64_t t_ns) {
            return found(self.choose(own_scores(scores, self.size()), t_ns));
          },
          nb::arg("scores").noconvert(), nb::arg("t_ns"),
          nb::sig("def choose(self, scores: numpy.typing.NDArray[numpy.float64], t_ns: int) -> int | None"),
          "Smooth the scores [n] of ``t_ns`` in place; return the index of the label they choose, or None.")
      .def(
          "tell",
          [](Smoother& self, std::optional<int> label, std::int64_t t_ns) {
            return found(self.tell(label.value_or(-1), t_ns));
          },
          nb::arg("label").none(), nb::arg("t_ns"),
          "Return the label to report at ``t_ns``, after the one that was chosen.")
      .def("reset", &Smoother::reset, "Forget the past, at a new epoch or after an undefined score.");
}

}  // namespace mmedge::bindings
