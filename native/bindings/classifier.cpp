#include "interpret/classifier.hpp"

#include <nanobind/stl/optional.h>

#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

class Classification {
 public:
  Classification(const Classifier::Spec& spec, Reporting reporting)
      : core_(spec), reporting_(std::move(reporting)), ranks_(spec.top > 0) {}

  void read(const nb::object& output, nb::handle /*snapshot*/) {
    read_scores(output, core_.labels(), reporting_,
                [this](const auto* scores) { return core_.read(scores); });
  }
  nb::object tell(nb::handle snapshot) {
    const auto [told, score] = core_.tell(time_of(snapshot));
    const nb::object label = reporting_.label(told);
    if (!ranks_) return reporting_.result(nb::arg("label") = label, nb::arg("score") = score);
    nb::list top;
    for (const auto& [index, share] : core_.top())
      top.append(nb::make_tuple(reporting_.labels[index], share));
    return reporting_.result(nb::arg("label") = label, nb::arg("score") = score,
                             nb::arg("top") = nb::tuple(top));
  }
  void reset() { core_.reset(); }

 private:
  Classifier core_;
  Reporting reporting_;
  bool ranks_;
};

}  // namespace

// These calls last a microsecond, so they keep the GIL: to get it back can take milliseconds.
void bind_classifier(nb::module_& m) {
  nb::class_<Classification>(m, "Classifier", "Scores of labels: calibrated, smoothed, decided or abstained.")
      .def(
          "__init__",
          [](Classification* self, std::optional<double> temperature, std::size_t top,
             std::optional<double> tau_ms, double enter, double leave, std::optional<double> hold_ms,
             nb::tuple labels, nb::object result, nb::object convert, nb::object refuse) {
            const std::size_t n = labels.size();
            new (self)
                Classification({n, temperature, top, {tau_ms, enter, leave, hold_ms}},
                               {std::move(labels), std::move(result), std::move(convert), std::move(refuse)});
          },
          nb::arg("temperature").none(), nb::arg("top"), nb::arg("tau_ms").none(), nb::arg("enter"),
          nb::arg("leave"), nb::arg("hold_ms").none(), nb::kw_only(), nb::arg("labels"), nb::arg("result"),
          nb::arg("convert"), nb::arg("refuse"),
          nb::sig(
              "def __init__(self, temperature: float | None, top: int, tau_ms: float | None, enter: float, "
              "leave: float, hold_ms: float | None, *, labels: tuple[str, ...], result: type, "
              "convert: collections.abc.Callable[[typing.Any], typing.Any], "
              "refuse: collections.abc.Callable[[float, float], object]) -> None"),
          "Without a ``temperature`` the output is probabilities, otherwise logits. ``convert`` makes "
          "float64 "
          "values of an\noutput of another type, and raises for another number of them; ``refuse`` raises "
          "for "
          "the range of scores that\nare no probabilities.")
      .def("read", &Classification::read, nb::arg("output"), nb::arg("snapshot"),
           nb::sig("def read(self, output: typing.Any, snapshot: object) -> None"),
           "Take up an output of any shape, one score a label.")
      .def("tell", &Classification::tell, nb::arg("snapshot"),
           nb::sig("def tell(self, snapshot: object) -> typing.Any"),
           "Smooth what was read; return a ``result`` with the label and its score, or no label and the best "
           "score.")
      .def("reset", &Classification::reset, "Forget the past.");
}

}  // namespace mmedge::bindings
