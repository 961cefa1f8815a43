#include "interpret/verifier.hpp"

#include <nanobind/stl/optional.h>

#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

// Of fewer than two inputs nothing can be told.
bool pairless(nb::handle snapshot) {
  int present = 0;
  for (const auto [seat, there] : nb::cast<nb::dict>(snapshot.attr("present")))
    present += nb::cast<bool>(there);
  return present < 2;
}

class Verification {
 public:
  Verification(std::optional<double> temperature, const SmoothingSpec& smoothing, Reporting reporting,
               nb::object undefined)
      : core_(temperature, smoothing), reporting_(std::move(reporting)), undefined_(std::move(undefined)) {}

  void read(const nb::object& output, nb::handle snapshot) {
    const bool matters = !pairless(snapshot);
    read_scores(output, 1, reporting_, [&](const auto* score) {
      return matters ? core_.read(static_cast<double>(*score)) : std::nullopt;
    });
  }
  nb::object tell(nb::handle snapshot) {
    if (pairless(snapshot)) {
      reset();
      return undefined_;
    }
    const auto [told, score] = core_.tell(time_of(snapshot));
    const nb::object label = reporting_.label(told);
    return reporting_.result(nb::arg("label") = label, nb::arg("score") = score);
  }
  void reset() { core_.reset(); }

 private:
  Verifier core_;
  Reporting reporting_;
  nb::object undefined_;
};

}  // namespace

void bind_verifier(nb::module_& m) {
  nb::class_<Verification>(m, "Verifier",
                           "One score: do the inputs agree? Undefined with fewer than two of them.")
      .def(
          "__init__",
          [](Verification* self, std::optional<double> temperature, std::optional<double> tau_ms,
             double enter, double leave, std::optional<double> hold_ms, nb::tuple labels, nb::object result,
             nb::object undefined, nb::object convert, nb::object refuse) {
            new (self)
                Verification(temperature, {tau_ms, enter, leave, hold_ms},
                             {std::move(labels), std::move(result), std::move(convert), std::move(refuse)},
                             std::move(undefined));
          },
          nb::arg("temperature").none(), nb::arg("tau_ms").none(), nb::arg("enter"), nb::arg("leave"),
          nb::arg("hold_ms").none(), nb::kw_only(), nb::arg("labels"), nb::arg("result"),
          nb::arg("undefined"), nb::arg("convert"), nb::arg("refuse"),
          nb::sig("def __init__(self, temperature: float | None, tau_ms: float | None, enter: float, "
                  "leave: float, hold_ms: float | None, *, labels: tuple[str, ...], result: type, "
                  "undefined: object, convert: collections.abc.Callable[[typing.Any], typing.Any], "
                  "refuse: collections.abc.Callable[[float, float], object]) -> None"),
          "``labels`` are (no, yes). Without a ``temperature`` the output is a probability, otherwise a "
          "logit.\n"
          "The other arguments are those of ``Classifier``.")
      .def("read", &Verification::read, nb::arg("output"), nb::arg("snapshot"),
           nb::sig("def read(self, output: typing.Any, snapshot: object) -> None"),
           "Take up one score; what it is does not matter with fewer than two inputs.")
      .def("tell", &Verification::tell, nb::arg("snapshot"),
           nb::sig("def tell(self, snapshot: object) -> typing.Any"),
           "Smooth what was read; return a ``result`` with yes, no or no label, and the probability of yes.")
      .def("reset", &Verification::reset, "Forget the past.");
}

}  // namespace mmedge::bindings
