#include "interpret/regressor.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

class Regression final : public TaskReader {
 public:
  Regression(std::optional<double> tau_ms, std::optional<std::pair<double, double>> clamp, std::string unit,
             nb::object convert)
      : core_(tau_ms, clamp), unit_(std::move(unit)), complaints_{std::move(convert), nb::none()} {}

  void read(const nb::object& output, nb::handle /*snapshot*/) override {
    read_scores(output, 1, complaints_, [this](const auto* value) -> Classifier::Refused {
      core_.read(static_cast<double>(*value));
      return std::nullopt;
    });
  }
  TaskTold tell(nb::handle snapshot) override {
    TaskTold told;
    told.value = core_.tell(time_of(snapshot));
    told.unit = unit_;
    return told;
  }
  void reset() override { core_.reset(); }

 private:
  Regressor core_;
  std::string unit_;
  Complaints complaints_;
};

}  // namespace

void bind_regressor(nb::module_& m) {
  nb::class_<Regression, TaskReader>(m, "Regressor",
                                     "One number: clamped, averaged over time, told to six digits.")
      .def(
          nb::init<std::optional<double>, std::optional<std::pair<double, double>>, std::string,
                   nb::object>(),
          nb::arg("tau_ms").none(), nb::arg("clamp").none(), nb::kw_only(), nb::arg("unit"),
          nb::arg("convert"),
          nb::sig("def __init__(self, tau_ms: float | None, clamp: tuple[float, float] | None, *, unit: str, "
                  "convert: collections.abc.Callable[[typing.Any], typing.Any]) -> None"),
          "``convert`` is that of ``Classifier``.");
}

}  // namespace mmedge::bindings
