#include "interpret/detector.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/modules.hpp"
#include "bindings/score_arrays.hpp"

namespace mmedge::bindings {
namespace {

Detector::Layout layout(const std::string& name) {
  if (name == "boxes") return Detector::Layout::kBoxes;
  if (name == "yolo") return Detector::Layout::kYolo;
  if (name == "yolo-objectness") return Detector::Layout::kYoloObjectness;
  throw std::invalid_argument("layout must be 'boxes', 'yolo' or 'yolo-objectness', not '" + name + "'");
}

nb::ndarray<nb::numpy, double> found_scores(const Detector& self) {
  const std::size_t n = self.found().size();
  auto copy = std::make_unique<double[]>(n);
  for (std::size_t k = 0; k < n; ++k) copy[k] = self.scores()[self.found()[k]];
  const nb::capsule owner(copy.get(), [](void* data) noexcept { delete[] static_cast<double*>(data); });
  return {copy.release(), {n}, owner};
}

std::optional<double> take(Detector& self, const Input& output, const std::optional<Input>& picked) {
  std::vector<std::size_t> some;
  const std::vector<std::size_t>* rows = &self.found();
  if (picked) {
    if (picked->dtype() != nb::dtype<std::int64_t>() || picked->ndim() != 1)
      throw std::invalid_argument("picked must be int64 with one dimension");
    check<std::int64_t>(*picked, "picked");
    const auto* places = static_cast<const std::int64_t*>(picked->data());
    for (std::size_t k = 0; k < picked->size(); ++k)
      some.push_back(rows->at(static_cast<std::size_t>(places[k])));
    rows = &some;
  }
  const std::size_t count = self.scores().size();
  return with_scores(output, count * self.values(), [&](const auto* values) {
    return self.take(values, count, rows->data(), rows->size());
  });
}

}  // namespace

// These calls last microseconds, so they keep the GIL: to get it back can take milliseconds.
void bind_detector(nb::module_& m) {
  nb::class_<Detector>(m, "Detector", "Boxes of a detector's output: read, take, map the corners, tell.")
      .def(
          "__init__",
          [](Detector* self, const std::string& name, std::size_t classes, std::size_t most, double threshold,
             float iou) {
            if (classes < 1 && name != "boxes")
              throw std::invalid_argument("a detector needs at least one class");
            new (self) Detector({layout(name), classes, most, threshold, iou});
          },
          nb::arg("layout"), nb::arg("classes"), nb::arg("most"), nb::arg("threshold"), nb::arg("iou"),
          nb::sig("def __init__(self, layout: str, classes: int, most: int, threshold: float, iou: float) -> "
                  "None"))
      .def_prop_ro("values", &Detector::values, "How many values a row has.")
      .def(
          "read",
          [](Detector& self, const Input& output) {
            const std::size_t rows = output.size() / self.values();
            return with_scores(output, rows * self.values(),
                               [&](const auto* values) { return self.read(values, rows); });
          },
          nb::arg("output").noconvert(),
          nb::sig("def read(self, output: numpy.typing.NDArray[numpy.float32] | "
                  "numpy.typing.NDArray[numpy.float64]) -> tuple[float, float] | None"),
          "Score rows: [values, n] of ``yolo``, else [n, values]; return the range of scores that are no "
          "probabilities.")
      .def("found_scores", &found_scores,
           nb::sig("def found_scores(self) -> numpy.typing.NDArray[numpy.float64]"),
           "Return the scores [k] of the rows above the threshold; a copy.")
      .def_prop_ro(
          "found", [](const Detector& self) { return self.found().size(); },
          "How many rows are above the threshold.")
      .def(
          "take", &take, nb::arg("output").noconvert(), nb::arg("picked") = nb::none(),
          nb::sig(
              "def take(self, output: numpy.typing.NDArray[numpy.float32] | "
              "numpy.typing.NDArray[numpy.float64], picked: numpy.typing.NDArray[numpy.int64] | None = None) "
              "-> float | None"),
          "Take up those found in the same output, or those ``picked`` of them [k]; return a class that does "
          "not "
          "exist.")
      .def(
          "corners",
          [](Detector& self) {
            return nb::ndarray<nb::numpy, double>(self.corners().data(), {self.corners().size(), 4},
                                                  nb::find(self));
          },
          nb::sig("def corners(self) -> numpy.typing.NDArray[numpy.float64]"),
          "Corners [k, 4] in pixels of the network's input, to be mapped to 0..1 of the picture in place.")
      .def(
          "tell",
          [](Detector& self) {
            nb::list told;
            for (const Detector::Box& box : self.tell())
              told.append(nb::make_tuple(box.label, box.score, box.corners[0], box.corners[1], box.corners[2],
                                         box.corners[3]));
            return told;
          },
          nb::sig("def tell(self) -> list[tuple[int, float, float, float, float, float]]"),
          "The boxes, best first: class, score, x1, y1, x2, y2.");
}

}  // namespace mmedge::bindings
