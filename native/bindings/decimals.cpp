#include "decimals.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_decimals(nb::module_& m) {
  m.def("round_decimals", &round_decimals, nb::arg("value"), nb::arg("digits"),
        "Return what ``round`` does, to the same bits; ``digits`` is 0 to 15.");
  m.def(
      "round_values",
      [](const nb::dict& values, int digits) {
        nb::dict rounded;
        for (const auto& [key, value] : values)
          rounded[key] = nb::float_(round_decimals(nb::cast<double>(value), digits));
        return rounded;
      },
      nb::arg("values"), nb::arg("digits"),
      nb::sig("def round_values(values: dict[str, float], digits: int) -> dict[str, float]"),
      "Return a dict with every value rounded as ``round`` does.");
}

}  // namespace mmedge::bindings
