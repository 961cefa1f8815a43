#include "log_mel.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_log_mel(nb::module_& m) {
  nb::class_<LogMel>(m, "LogMel", "Log-mel features of one window of sound.")
      .def(
          "__init__",
          [](LogMel* self, std::size_t n_fft, std::size_t window_samples, std::size_t hop_samples,
             const Input& filters, float floor, float mean, float std) {
            check<float>(filters, "filters");
            if (filters.ndim() != 2) throw std::invalid_argument("filters must have two dimensions");
            check_shape(filters, "filters", {n_fft / 2 + 1, filters.shape(1)});
            new (self) LogMel({n_fft, window_samples, hop_samples, filters.shape(1), floor, mean, std},
                              static_cast<const float*>(filters.data()));
          },
          nb::arg("n_fft"), nb::arg("window_samples"), nb::arg("hop_samples"), nb::arg("filters").noconvert(),
          nb::arg("floor"), nb::arg("mean"), nb::arg("std"),
          nb::sig(
              "def __init__(self, n_fft: int, window_samples: int, hop_samples: int, "
              "filters: numpy.typing.NDArray[numpy.float32], floor: float, mean: float, std: float) -> None"),
          "``filters``: [n_fft // 2 + 1, n_mels].")
      .def(
          "compute",
          [](LogMel& self, const Input& pcm, const Output& out) {
            check<float>(pcm, "pcm");
            check<float>(out, "out");
            if (pcm.ndim() != 1) throw std::invalid_argument("pcm must have one dimension");
            const std::size_t frames = self.frames(pcm.shape(0));
            if (out.ndim() == 3)
              check_shape(out, "out", {1, frames, self.n_mels()});
            else
              check_shape(out, "out", {frames, self.n_mels()});
            const nb::gil_scoped_release unlocked;
            self.compute(static_cast<const float*>(pcm.data()), pcm.shape(0),
                         static_cast<float*>(out.data()));
          },
          nb::arg("pcm").noconvert(), nb::arg("out").noconvert(),
          nb::sig("def compute(self, pcm: numpy.typing.NDArray[numpy.float32], out: "
                  "numpy.typing.NDArray[numpy.float32]) -> None"),
          "Write the features of [samples] to [frames, n_mels] or [1, frames, n_mels].");
}

}  // namespace mmedge::bindings
