#include "interpret/verifier.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

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

class Verification final : public TaskReader {
 public:
  Verification(std::optional<double> temperature, const SmoothingSpec& smoothing,
               std::vector<std::string> labels, Complaints complaints)
      : core_(temperature, smoothing), labels_(std::move(labels)), complaints_(std::move(complaints)) {}

  void read(const nb::object& output, nb::handle snapshot) override {
    const bool matters = !pairless(snapshot);
    read_scores(output, 1, complaints_, [&](const auto* score) {
      return matters ? core_.read(static_cast<double>(*score)) : std::nullopt;
    });
  }
  TaskTold tell(nb::handle snapshot) override {
    if (pairless(snapshot)) {
      reset();
      return {};
    }
    const auto [label, score] = core_.tell(time_of(snapshot));
    return {&labels_, label, score};
  }
  void reset() override { core_.reset(); }

 private:
  Verifier core_;
  std::vector<std::string> labels_;
  Complaints complaints_;
};

}  // namespace

void bind_verifier(nb::module_& m) {
  nb::class_<Verification, TaskReader>(
      m, "Verifier", "One score: do the inputs agree? Undefined with fewer than two of them.")
      .def(
          "__init__",
          [](Verification* self, std::optional<double> temperature, std::optional<double> tau_ms,
             double enter, double leave, std::optional<double> hold_ms, std::vector<std::string> labels,
             nb::object convert, nb::object refuse) {
            new (self) Verification(temperature, {tau_ms, enter, leave, hold_ms}, std::move(labels),
                                    {std::move(convert), std::move(refuse)});
          },
          nb::arg("temperature").none(), nb::arg("tau_ms").none(), nb::arg("enter"), nb::arg("leave"),
          nb::arg("hold_ms").none(), nb::kw_only(), nb::arg("labels"), nb::arg("convert"), nb::arg("refuse"),
          nb::sig("def __init__(self, temperature: float | None, tau_ms: float | None, enter: float, "
                  "leave: float, hold_ms: float | None, *, labels: collections.abc.Sequence[str], "
                  "convert: collections.abc.Callable[[typing.Any], typing.Any], "
                  "refuse: collections.abc.Callable[[float, float], object]) -> None"),
          "``labels`` are (no, yes). Without a ``temperature`` the output is a probability, otherwise a "
          "logit.\n"
          "The other arguments are those of ``Classifier``.");
}

}  // namespace mmedge::bindings
