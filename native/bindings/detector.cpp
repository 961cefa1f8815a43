#include "interpret/detector.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

Detector::Layout layout(const std::string& name) {
  if (name == "boxes") return Detector::Layout::kBoxes;
  if (name == "yolo") return Detector::Layout::kYolo;
  if (name == "yolo-objectness") return Detector::Layout::kYoloObjectness;
  throw std::invalid_argument("layout must be 'boxes', 'yolo' or 'yolo-objectness', not '" + name + "'");
}

// What Python does for a detection.
struct Helpers {
  nb::object rows;        // makes float32 or float64 rows of an output that is none, or raises
  nb::object few;         // of the scores [n] of too many rows, the places of those to take
  nb::object unknown;     // raises for the class of a row that has none
  nb::object to_picture;  // maps corners [n, 4] in place, to 0..1 of the picture
};

class Detection final : public TaskReader {
 public:
  Detection(const Detector::Spec& spec, std::vector<std::string> labels, nb::str seat, Helpers helpers,
            nb::object refuse)
      : core_(spec),
        transposed_(spec.layout == Detector::Layout::kYolo),
        labels_(std::move(labels)),
        seat_(std::move(seat)),
        helpers_(std::move(helpers)),
        refuse_(std::move(refuse)) {}

  // Without its picture there are no boxes.
  void read(const nb::object& output, nb::handle snapshot) override {
    told_ = nullptr;
    const auto own = nb::cast<Input>(output);
    const Input rows = plain(own) ? own : nb::cast<Input>(helpers_.rows(output));
    if (!nb::cast<bool>(nb::object(snapshot.attr("present"))[seat_])) return;
    const std::size_t n = rows.size() / core_.values();
    with_scores(rows, n * core_.values(), [&](const auto* values) { take_up(values, n); });
  }
  TaskTold tell(nb::handle /*snapshot*/) override {
    if (told_ == nullptr || told_->empty()) return {};
    TaskTold told;
    told.labels = &labels_;
    told.label = static_cast<int>(told_->front().label);
    told.score = told_->front().score;
    told.boxes = told_;
    return told;
  }
  void reset() override {}  // nothing is remembered

 private:
  // Whether it is [n, values], or [values, n] of the layout ``yolo``, in one piece; an axis of 1 may come
  // first.
  bool plain(const Input& output) const {
    const bool batched = output.ndim() == 3 && output.shape(0) == 1;
    if (output.dtype() != nb::dtype<float>() || !(batched || output.ndim() == 2)) return false;
    if (output.shape(output.ndim() - (transposed_ ? 2 : 1)) != core_.values()) return false;
    try {
      check<float>(output, "rows");
    } catch (const std::invalid_argument&) {
      return false;
    }
    return true;
  }

  template <typename T>
  void take_up(const T* values, std::size_t n) {
    if (const auto refused = core_.read(values, n)) refuse_(refused->first, refused->second);
    if (core_.found().empty()) return;
    const std::vector<std::size_t>& rows =
        core_.found().size() > Detector::kMostCandidates ? some() : core_.found();
    if (const std::optional<double> kind = core_.take(values, n, rows.data(), rows.size()))
      helpers_.unknown(*kind);
    std::vector<Corners>& corners = core_.corners();
    helpers_.to_picture(
        nb::cast(nb::ndarray<nb::numpy, double>(corners.data(), {corners.size(), 4}, nb::handle()),
                 nb::rv_policy::reference));
    told_ = &core_.tell();
  }
  const std::vector<std::size_t>& some() {
    const std::vector<std::size_t>& found = core_.found();
    auto scores = std::make_unique<double[]>(found.size());
    for (std::size_t k = 0; k < found.size(); ++k) scores[k] = core_.scores()[found[k]];
    const nb::capsule owner(scores.get(), [](void* data) noexcept { delete[] static_cast<double*>(data); });
    const nb::object picked =
        helpers_.few(nb::ndarray<nb::numpy, double>(scores.release(), {found.size()}, owner));
    some_.clear();
    for (const auto place : nb::cast<std::vector<std::int64_t>>(picked))
      some_.push_back(found.at(static_cast<std::size_t>(place)));
    return some_;
  }

  Detector core_;
  bool transposed_;
  std::vector<std::string> labels_;
  nb::str seat_;
  Helpers helpers_;
  nb::object refuse_;
  std::vector<std::size_t> some_;
  const std::vector<Detector::Box>* told_ = nullptr;
};

}  // namespace

// These calls last microseconds, so they keep the GIL: to get it back can take milliseconds.
void bind_detector(nb::module_& m) {
  m.attr("MAX_CANDIDATES") = Detector::kMostCandidates;  // of the boxes of one output, so many are compared
  nb::class_<Detection, TaskReader>(
      m, "Detector", "Boxes above the threshold, the best first; those of one class that overlap are one.")
      .def(
          "__init__",
          [](Detection* self, const std::string& name, std::size_t most, double threshold, float iou,
             std::vector<std::string> labels, nb::str seat, nb::object rows, nb::object few,
             nb::object unknown, nb::object to_picture, nb::object refuse) {
            if (labels.empty() && name != "boxes")
              throw std::invalid_argument("a detector needs at least one class");
            const std::size_t classes = labels.size();
            new (self)
                Detection({layout(name), classes, most, threshold, iou}, std::move(labels), std::move(seat),
                          {std::move(rows), std::move(few), std::move(unknown), std::move(to_picture)},
                          std::move(refuse));
          },
          nb::arg("layout"), nb::arg("most"), nb::arg("threshold"), nb::arg("iou"), nb::kw_only(),
          nb::arg("labels"), nb::arg("seat"), nb::arg("rows"), nb::arg("few"), nb::arg("unknown"),
          nb::arg("to_picture"), nb::arg("refuse"),
          nb::sig("def __init__(self, layout: str, most: int, threshold: float, iou: float, *, "
                  "labels: collections.abc.Sequence[str], seat: str, "
                  "rows: collections.abc.Callable[[typing.Any], typing.Any], "
                  "few: collections.abc.Callable[[numpy.typing.NDArray[numpy.float64]], "
                  "collections.abc.Sequence[int]], "
                  "unknown: collections.abc.Callable[[float], object], "
                  "to_picture: collections.abc.Callable[[numpy.typing.NDArray[numpy.float64]], object], "
                  "refuse: collections.abc.Callable[[float, float], object]) -> None"),
          "Without the picture of ``seat`` there are none. Outputs are [values, n] of ``yolo``, else [n, "
          "values].\n\n"
          "``rows`` makes float32 or float64 of an output of another type, and raises for another shape; "
          "``few``\n"
          "chooses, by their scores [n], MAX_CANDIDATES rows where there are more; ``unknown`` raises for "
          "the class\n"
          "of a row that has none; ``to_picture`` maps corners [n, 4] in place, from pixels of the network's "
          "input\n"
          "to 0..1 of the picture; ``refuse`` is that of ``Classifier``.");
}

}  // namespace mmedge::bindings
