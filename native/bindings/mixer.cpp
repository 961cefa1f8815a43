#include "capture/mixer.hpp"

#include "bindings/arrays.hpp"
#include "bindings/mixer.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

nb::object mix(Mixer& self, const Input& rows, std::int64_t rate_hz, const Output& out) {
  if (rows.dtype() != nb::dtype<float>() || rows.ndim() != 2)
    throw std::invalid_argument("rows must be float32 with two dimensions");
  if (rows.shape(1) > 1 && rows.stride(1) != 1)
    throw std::invalid_argument("the samples of a channel must lie one behind the other");
  if (rows.stride(0) < 0) throw std::invalid_argument("channels must not be reversed");
  check<float>(out, "out");
  check_shape(out, "out", {rows.shape(1)});
  // It lasts microseconds, so it keeps the GIL.
  const auto weak = self.mix({static_cast<const float*>(rows.data()), rows.shape(0), rows.shape(1),
                              static_cast<std::size_t>(rows.stride(0))},
                             rate_hz, static_cast<float*>(out.data()));
  return weak ? nb::object(told(*weak)) : nb::none();
}

}  // namespace

void bind_mixer(nb::module_& m) {
  nb::class_<Mixer>(m, "Mixer",
                    "Makes one input's mono of a source's channels: one as it is, or the mean of several.")
      .def(
          "__init__",
          [](Mixer* self, const nb::sequence& channels) { new (self) Mixer(channel_list(channels)); },
          nb::arg("channels"), nb::sig("def __init__(self, channels: collections.abc.Sequence[int]) -> None"),
          "Of these channels, from 0; of all where there is none.")
      .def("mix", &mix, nb::arg("rows").noconvert(), nb::arg("rate_hz"), nb::arg("out").noconvert(),
           nb::sig("def mix(self, rows: numpy.typing.NDArray[numpy.float32], rate_hz: int, out: "
                   "numpy.typing.NDArray[numpy.float32]) -> tuple[bool, int, float, int] | None"),
           "Mix float32 [channels, samples] into ``out`` [samples].\n\n"
           "Returns what is wrong with the mix of the last two seconds, at their end: whether it is silent "
           "beside\n"
           "channels that are not, or else far weaker than its own; how many these are; how many dB below "
           "the\n"
           "loudest of them; the number of the loudest of all.");
}

}  // namespace mmedge::bindings
