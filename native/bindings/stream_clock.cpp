#include "clock/stream_clock.hpp"

#include "bindings/modules.hpp"
#include "bindings/nanoseconds.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

// Calls of less than a microsecond keep the GIL.
void bind_stream_clock(nb::module_& m) {
  nb::class_<StreamClock>(
      m, "StreamClock",
      "Places a stream's own time (presentation time, sample count) on CLOCK_MONOTONIC.\n\n"
      "A packet can arrive late, never early, so a line with a slope follows the lower envelope of\n"
      "``arrival - stream time`` and not its mean: stalls of the reader do not move it. Times are ns; those\n"
      "beyond 64 bits count as the largest.")
      .def(
          "__init__", [](StreamClock* self, Nanoseconds floor_ns) { new (self) StreamClock(floor_ns); },
          nb::kw_only(), nb::arg("floor_ns"),
          "``floor_ns``: the smallest uncertainty to claim, for what the envelope cannot see (constant "
          "delays).")
      .def(
          "observe",
          [](StreamClock& self, Nanoseconds stream_ns, Nanoseconds arrive_ns, bool gap) {
            return self.observe(stream_ns, arrive_ns, gap);
          },
          nb::arg("stream_ns"), nb::arg("arrive_ns"), nb::kw_only(), nb::arg("gap") = false,
          "Learn that stream time ``stream_ns`` arrived at ``arrive_ns``.\n\n"
          "``gap``: the stream says that something is missing before this, but not how much. Returns 0, or "
          "the\n"
          "jump of the mapping in ns: positive after a gap of the stream, negative when everything before "
          "was\n"
          "stamped too late; beyond 10 s the stream's own time has jumped.")
      .def("restart", &StreamClock::restart,
           "Forget the offset, keep the slope: the stream's time begins anew with the next observation.")
      .def(
          "shift", [](StreamClock& self, Nanoseconds gap_ns) { self.shift(gap_ns); }, nb::arg("gap_ns"),
          "Take in that ``gap_ns`` of the stream are missing before the next observation.")
      .def(
          "to_monotonic",
          [](StreamClock& self, Nanoseconds stream_ns) { return self.to_monotonic(stream_ns); },
          nb::arg("stream_ns"),
          "Return the time of ``stream_ns`` on CLOCK_MONOTONIC.\n\n"
          "While the stream advances it never runs back, except by a jump that ``observe`` returned.")
      .def_prop_ro("offset_ns", &StreamClock::offset_ns,
                   "CLOCK_MONOTONIC less the stream's own time, at the latest bucket.")
      .def_prop_ro("ppm", &StreamClock::ppm,
                   "How much slower than CLOCK_MONOTONIC the stream's clock runs, in parts per million.")
      .def_prop_ro("jitter_ns", &StreamClock::jitter_ns,
                   "99 % of the latest packets arrived within this of the earliest possible time.")
      .def_prop_ro(
          "uncertainty_ns", &StreamClock::uncertainty_ns,
          "Bound on the error of the mapping, in ns.\n\n"
          "The floor, and the largest of: 1.5 times the spread of the minima (their middle half) with how\n"
          "far the newest of them is off the line; how far even the earliest packet of the last quarter of\n"
          "a second is above it; how much more than the earliest half of the packets needed (at most\n"
          "1 ms), as fine noise may be two-sided. While few packets were seen, also how late all of them\n"
          "may have been.");
}

}  // namespace mmedge::bindings
