#include "interpret/suppress.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_suppress(nb::module_& m) {
  m.def(
      "suppress",
      [](const Input& corners, const Input& scores, float iou, const std::optional<Input>& classes) {
        check<double>(corners, "corners");
        check<float>(scores, "scores");
        const std::size_t n = scores.size();
        check_shape(scores, "scores", {n});
        check_shape(corners, "corners", {n, 4});
        if (classes) {
          if (classes->dtype() != nb::dtype<int>()) throw std::invalid_argument("classes must be int32");
          check_contiguous(*classes, "classes");
          check_shape(*classes, "classes", {n});
        }
        std::vector<Corners> boxes(n);
        std::vector<float> marks(n);
        std::vector<int> kinds(classes ? n : 0);
        if (n > 0) {
          std::memcpy(boxes.data(), corners.data(), n * sizeof(Corners));
          std::memcpy(marks.data(), scores.data(), n * sizeof(float));
          if (classes) std::memcpy(kinds.data(), classes->data(), n * sizeof(int));
        }
        Suppressor suppressor;
        const auto keep = [&] {
          return suppressor.keep(boxes.data(), marks.data(), classes ? kinds.data() : nullptr, n, iou, n);
        };
        if (n < 256) return keep();  // microseconds: to get the GIL back takes more
        const nb::gil_scoped_release unlocked;
        return keep();
      },
      nb::arg("corners").noconvert(), nb::arg("scores").noconvert(), nb::arg("iou"),
      nb::arg("classes") = nb::none(),
      nb::sig("def suppress(corners: numpy.typing.NDArray[numpy.float64], scores: "
              "numpy.typing.NDArray[numpy.float32], iou: float, classes: numpy.typing.NDArray[numpy.int32] | "
              "None = "
              "None) -> list[int]"),
      "Return the boxes [n, 4] that overlap no better one (of the same class) by more than ``iou``, best "
      "first.");
}

}  // namespace mmedge::bindings
