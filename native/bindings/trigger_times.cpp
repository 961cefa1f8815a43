#include "statistics/trigger_times.hpp"

#include <nanobind/stl/string.h>

#include <string>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "decimals.hpp"

namespace mmedge::bindings {
namespace {

Origin origin(const std::string& name) {
  if (name == "capture") return Origin::kCapture;
  if (name == "delivery") return Origin::kDelivery;
  if (name == "call") return Origin::kCall;
  throw std::invalid_argument("origin must be 'capture', 'delivery' or 'call', not '" + name + "'");
}

nb::dict latency_ms(const TriggerTimes::Latency& latency) {
  nb::dict found;
  for (const auto& [name, step_ns] : steps_of(latency))
    found[nb::str(name.data(), name.size())] = round_decimals(static_cast<double>(step_ns) / 1e6, 3);
  return found;
}

}  // namespace

void bind_trigger_times(nb::module_& m) {
  using Keep = Histogram&;
  nb::class_<TriggerTimes>(m, "TriggerTimes", "Counts the times of one trigger after the other.")
      .def(
          "__init__",
          [](TriggerTimes* self, const std::string& from, Keep end_to_end, Keep overhead, Keep deliver,
             Keep ready, Keep preprocessed, Keep inferred, Keep interpreted, Keep stamps, Keep skew,
             Keep uncertainty) {
            new (self) TriggerTimes(origin(from), {&end_to_end, &overhead, &deliver, &ready, &preprocessed,
                                                   &inferred, &interpreted, &stamps, &skew, &uncertainty});
          },
          nb::arg("origin"), nb::arg("end_to_end"), nb::arg("overhead"), nb::arg("deliver"), nb::arg("ready"),
          nb::arg("preprocessed"), nb::arg("inferred"), nb::arg("interpreted"), nb::arg("stamps"),
          nb::arg("skew"), nb::arg("uncertainty"), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(),
          nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>(), nb::keep_alive<1, 7>(), nb::keep_alive<1, 8>(),
          nb::keep_alive<1, 9>(), nb::keep_alive<1, 10>(), nb::keep_alive<1, 11>(), nb::keep_alive<1, 12>(),
          "``origin``: latency counts from the ``capture``, the ``delivery``, or the start of the ``call``.")
      .def(
          "add",
          [](TriggerTimes& self, std::int64_t capture_ns, std::int64_t delivered_ns, std::int64_t start_ns,
             std::int64_t inferred_ns, std::int64_t end_ns, std::int64_t waited_ns,
             std::int64_t preprocessing_ns, std::int64_t engines_ns, std::int64_t stamp_uncertainty_ns,
             double skew_ms, double uncertainty_ms) {
            const TriggerTimes::Latency found =
                self.add({capture_ns, delivered_ns, start_ns, inferred_ns, end_ns, waited_ns,
                          preprocessing_ns, engines_ns, stamp_uncertainty_ns, skew_ms, uncertainty_ms});
            return nb::make_tuple(found.from, latency_ms(found));
          },
          nb::arg("capture_ns"), nb::arg("delivered_ns"), nb::arg("start_ns"), nb::arg("inferred_ns"),
          nb::arg("end_ns"), nb::arg("waited_ns"), nb::arg("preprocessing_ns"), nb::arg("engines_ns"),
          nb::arg("stamp_uncertainty_ns"), nb::arg("skew_ms"), nb::arg("uncertainty_ms"),
          nb::sig("def add(self, capture_ns: int, delivered_ns: int, start_ns: int, inferred_ns: int, "
                  "end_ns: int, "
                  "waited_ns: int, preprocessing_ns: int, engines_ns: int, stamp_uncertainty_ns: int, "
                  "skew_ms: float, "
                  "uncertainty_ms: float) -> tuple[int, dict[str, float]]"),
          "Count the times of one trigger; return from when its latency counts, and its steps in ms, to 1 "
          "us.");
}

}  // namespace mmedge::bindings
