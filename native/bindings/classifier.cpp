#include "interpret/classifier.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

class Classification final : public TaskReader {
 public:
  Classification(const Classifier::Spec& spec, std::vector<std::string> labels, Complaints complaints)
      : core_(spec), labels_(std::move(labels)), complaints_(std::move(complaints)), ranks_(spec.top > 0) {}

  void read(const nb::object& output, nb::handle /*snapshot*/) override {
    read_scores(output, core_.labels(), complaints_,
                [this](const auto* scores) { return core_.read(scores); });
  }
  TaskTold tell(nb::handle snapshot) override {
    const auto [label, score] = core_.tell(time_of(snapshot));
    return {&labels_, label, score, ranks_ ? &core_.top() : nullptr};
  }
  void reset() override { core_.reset(); }

 private:
  Classifier core_;
  std::vector<std::string> labels_;
  Complaints complaints_;
  bool ranks_;
};

}  // namespace

// These calls last a microsecond, so they keep the GIL: to get it back can take milliseconds.
void bind_classifier(nb::module_& m) {
  nb::class_<Classification, TaskReader>(m, "Classifier",
                                         "Scores of labels: calibrated, smoothed, decided or abstained.")
      .def(
          "__init__",
          [](Classification* self, std::optional<double> temperature, std::size_t top,
             std::optional<double> tau_ms, double enter, double leave, std::optional<double> hold_ms,
             std::vector<std::string> labels, nb::object convert, nb::object refuse) {
            const std::size_t n = labels.size();
            new (self) Classification({n, temperature, top, {tau_ms, enter, leave, hold_ms}},
                                      std::move(labels), {std::move(convert), std::move(refuse)});
          },
          nb::arg("temperature").none(), nb::arg("top"), nb::arg("tau_ms").none(), nb::arg("enter"),
          nb::arg("leave"), nb::arg("hold_ms").none(), nb::kw_only(), nb::arg("labels"), nb::arg("convert"),
          nb::arg("refuse"),
          nb::sig(
              "def __init__(self, temperature: float | None, top: int, tau_ms: float | None, enter: float, "
              "leave: float, hold_ms: float | None, *, labels: collections.abc.Sequence[str], "
              "convert: collections.abc.Callable[[typing.Any], typing.Any], "
              "refuse: collections.abc.Callable[[float, float], object]) -> None"),
          "Without a ``temperature`` the output is probabilities, otherwise logits; it has one score a "
          "label.\n\n"
          "``convert`` makes float64 values of an output of another type, and raises for another number of "
          "them;\n"
          "``refuse`` raises for the range of scores that are no probabilities.");
}

}  // namespace mmedge::bindings
