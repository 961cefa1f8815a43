#include "sliding_log_mel.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

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
          "read",
          [](SlidingLogMel& self, const SampleRing& ring, std::int64_t end, const Output& out) {
            check<float>(out, "out");
            check_shape(out, "out", {1, self.frames(), self.n_mels()});
            auto* to = static_cast<float*>(out.data());
            if (self.wanted(end) < self.samples()) return self.read(ring, end, to);  // likewise
            const nb::gil_scoped_release unlocked;
            self.read(ring, end, to);
          },
          nb::arg("ring"), nb::arg("end"), nb::arg("out").noconvert(),
          nb::sig(
              "def read(self, ring: SampleRing, end: int, out: numpy.typing.NDArray[numpy.float32]) -> None"),
          "Write [1, frames, n_mels] of the window that ends before index ``end`` of the ring.")
      .def("forget", &SlidingLogMel::forget, "Forget the sound that was heard: what comes is other sound.");
}

}  // namespace mmedge::bindings
