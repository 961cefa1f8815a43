#include "bindings/microphone_clock.hpp"

#include "bindings/modules.hpp"
#include "bindings/nanoseconds.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

// Calls of microseconds keep the GIL.
void bind_microphone_clock(nb::module_& m) {
  nb::class_<MicrophoneClock>(
      m, "MicrophoneClock",
      "Places a microphone's count of samples on CLOCK_MONOTONIC by the best time there is.\n\n"
      "Classes of time are numbered from the best: 0 the converter's, 1 PortAudio's of the callback, 2 the "
      "entry "
      "of\nour callback. For two seconds the last is used and all are probed; then the best is used and "
      "watched.")
      .def(
          "__init__",
          [](MicrophoneClock* self, std::int64_t rate_hz, Nanoseconds a, Nanoseconds b, Nanoseconds c) {
            new (self) MicrophoneClock(rate_hz, {a, b, c});
          },
          nb::arg("rate_hz"), nb::arg("a_ns"), nb::arg("b_ns"), nb::arg("c_ns"),
          "Of a device of so many samples per second, with the least uncertainty to claim for each class.")
      .def(
          "observe",
          [](MicrophoneClock& self, std::int64_t samples, Nanoseconds entry_ns, Nanoseconds adc_ns,
             Nanoseconds current_ns,
             bool overflow) { return told(self.observe({samples, entry_ns, adc_ns, current_ns}, overflow)); },
          nb::arg("samples"), nb::arg("entry_ns"), nb::arg("adc_ns"), nb::arg("current_ns"),
          nb::arg("overflow"),
          nb::sig(
              "def observe(self, samples: int, entry_ns: int, adc_ns: int, current_ns: int, overflow: bool) "
              "-> tuple[int, bool, int]"),
          "Learn from the next block: the samples counted up to its end, its times in ns, and whether the "
          "device\n"
          "says that some are missing before it.\n\n"
          "Returns how much is missing before the block, in ns; whether a new epoch must begin; 1 if a class "
          "was\n"
          "chosen after the probe, 2 if one was left, else 0.")
      .def("stream_ns", &MicrophoneClock::stream_ns, nb::arg("samples"),
           "Return the microphone's own time of a count of samples.")
      .def(
          "to_monotonic",
          [](MicrophoneClock& self, Nanoseconds stream_ns) { return self.to_monotonic(stream_ns); },
          nb::arg("stream_ns"), "Return the time of ``stream_ns`` on CLOCK_MONOTONIC.")
      .def_prop_ro(
          "quality", [](const MicrophoneClock& self) { return static_cast<int>(self.quality()); },
          "The class in use.")
      .def_prop_ro(
          "uncertainty_ns", [](const MicrophoneClock& self) { return self.clock().uncertainty_ns(); },
          "Bound on the error of the mapping, in ns.")
      .def_prop_ro(
          "report", [](const MicrophoneClock& self) { return report(self.quality(), self.clock()); },
          nb::for_getter(nb::sig("def report(self) -> tuple[int, int, float, int, int]")),
          "The class in use; its offset in ns, ppm, jitter and uncertainty in ns, see ``StreamClock``.");
}

}  // namespace mmedge::bindings
