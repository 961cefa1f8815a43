#include "sliding_log_mel.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

void read_window(SlidingLogMel& self, const SampleRing& ring, std::int64_t end, const Output& out) {
  check<float>(out, "out");
  check_shape(out, "out", {1, self.frames(), self.n_mels()});
  auto* to = static_cast<float*>(out.data());
  if (self.wanted(end) < self.samples())
    return self.read(ring, end, to);  // microseconds: to get the GIL back takes more
  const nb::gil_scoped_release unlocked;
  self.read(ring, end, to);
}

// What a stage calls for the sound of a trigger.
class SoundFill {
 public:
  SoundFill(nb::str name, nb::object sliding, nb::object ring, nb::object slow, nb::object refuse)
      : name_(std::move(name)),
        kept_(std::move(sliding)),
        sliding_(nb::cast<SlidingLogMel&>(kept_)),
        ring_of_(std::move(ring)),
        slow_(std::move(slow)),
        refuse_(std::move(refuse)) {}

  void fill(nb::handle snapshot, nb::handle out, nb::handle read_audio,
            const std::optional<std::int64_t>& end) {
    if (!source_.is(read_audio) &&
        !source_.equal(read_audio)) {  // the sound of another run has the same numbers
      sliding_.forget();
      ring_ = ring_of_(read_audio);
      source_ = nb::borrow(read_audio);
    }
    const std::int64_t until =
        end ? *end : nb::cast<std::int64_t>(nb::object(nb::object(snapshot.attr("audio_end"))[name_]));
    if (ring_.is_none()) {
      slow_(snapshot, out, read_audio, until);
      return;
    }
    try {
      read_window(sliding_, nb::cast<const SampleRing&>(ring_), until, nb::cast<Output>(out, false));
    } catch (const std::invalid_argument& error) {
      refuse_(error.what());
    }
  }

 private:
  nb::str name_;
  nb::object kept_;
  SlidingLogMel& sliding_;
  nb::object ring_of_, slow_, refuse_;
  nb::object source_ = nb::none(), ring_ = nb::none();
};

}  // namespace

void bind_sliding_log_mel(nb::module_& m) {
  nb::class_<SlidingLogMel>(
      m, "SlidingLogMel",
      "Log-mel features of a window that slides over sound: what two windows share is computed once.")
      .def(
          "__init__",
          [](SlidingLogMel* self, std::size_t n_fft, std::size_t window_samples, std::size_t hop_samples,
             const Input& filters, float floor, float mean, float std, std::size_t samples) {
            check<float>(filters, "filters");
            if (filters.ndim() != 2) throw std::invalid_argument("filters must have two dimensions");
            check_shape(filters, "filters", {n_fft / 2 + 1, filters.shape(1)});
            new (self) SlidingLogMel({n_fft, window_samples, hop_samples, filters.shape(1), floor, mean, std},
                                     static_cast<const float*>(filters.data()), samples);
          },
          nb::arg("n_fft"), nb::arg("window_samples"), nb::arg("hop_samples"), nb::arg("filters").noconvert(),
          nb::arg("floor"), nb::arg("mean"), nb::arg("std"), nb::arg("samples"),
          nb::sig("def __init__(self, n_fft: int, window_samples: int, hop_samples: int, "
                  "filters: numpy.typing.NDArray[numpy.float32], floor: float, mean: float, std: float, "
                  "samples: int) -> None"),
          "``filters``: [n_fft // 2 + 1, n_mels]; ``samples``: of a window.")
      .def("wanted", &SlidingLogMel::wanted, nb::arg("end"),
           "How many of its last samples the window that ends before index ``end`` is computed from.")
      .def(
          "compute",
          [](SlidingLogMel& self, const Input& tail, std::int64_t end, const Output& out) {
            check<float>(tail, "tail");
            check<float>(out, "out");
            const std::size_t wanted = self.wanted(end);
            check_shape(tail, "tail", {wanted});
            check_shape(out, "out", {1, self.frames(), self.n_mels()});
            const auto* from = static_cast<const float*>(tail.data());
            auto* to = static_cast<float*>(out.data());
            if (wanted < self.samples())
              return self.compute(from, end, to);  // microseconds: to get the GIL back takes more
            const nb::gil_scoped_release unlocked;
            return self.compute(from, end, to);
          },
          nb::arg("tail").noconvert(), nb::arg("end"), nb::arg("out").noconvert(),
          nb::sig("def compute(self, tail: numpy.typing.NDArray[numpy.float32], end: int, out: "
                  "numpy.typing.NDArray[numpy.float32]) -> bool"),
          "Write [1, frames, n_mels] from the ``wanted`` samples; False if the whole window is wanted after "
          "all.")
      .def(
          "read", &read_window, nb::arg("ring"), nb::arg("end"), nb::arg("out").noconvert(),
          nb::sig(
              "def read(self, ring: SampleRing, end: int, out: numpy.typing.NDArray[numpy.float32]) -> None"),
          "Write [1, frames, n_mels] of the window that ends before index ``end`` of the ring.")
      .def("forget", &SlidingLogMel::forget, "Forget the sound that was heard: what comes is other sound.");
  nb::class_<SoundFill>(m, "SoundFill",
                        "Writes the features of a trigger's sound: the ``fill`` of an audio feed.")
      .def(nb::init<nb::str, nb::object, nb::object, nb::object, nb::object>(), nb::arg("name"),
           nb::arg("sliding"), nb::kw_only(), nb::arg("ring"), nb::arg("slow"), nb::arg("refuse"),
           nb::sig("def __init__(self, name: str, sliding: SlidingLogMel, *, "
                   "ring: collections.abc.Callable[[typing.Any], SampleRing | None], "
                   "slow: collections.abc.Callable[[typing.Any, typing.Any, typing.Any, int], object], "
                   "refuse: collections.abc.Callable[[str], object]) -> None"),
           "``ring`` gives the ring that holds the sound of a reader, or None: then ``slow`` writes them.\n\n"
           "``refuse`` raises for an array that does not fit.")
      .def("__call__", &SoundFill::fill, nb::arg("snapshot"), nb::arg("out"), nb::arg("read_audio"),
           nb::arg("end") = nb::none(),
           nb::sig("def __call__(self, snapshot: typing.Any, out: numpy.typing.NDArray[numpy.float32], "
                   "read_audio: typing.Any, end: int | None = None) -> None"),
           "Write the window that ends before index ``end``, by default where the snapshot cuts, into "
           "``out``.");
}

}  // namespace mmedge::bindings
