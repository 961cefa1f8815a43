// What is told of a microphone's clock.
#pragma once

#include <nanobind/nanobind.h>

#include "clock/microphone_clock.hpp"

namespace mmedge::bindings {

// (gap in ns, whether a new epoch begins, 0 or how the class in use changed: 1 chosen, 2 left)
inline nanobind::tuple told(const MicrophoneClock::Outcome& outcome) {
  return nanobind::make_tuple(outcome.gap_ns, outcome.broken, static_cast<int>(outcome.change));
}

// What a ClockReport holds: (class in use, offset in ns, ppm, jitter in ns, uncertainty in ns).
inline nanobind::tuple report(Quality quality, const StreamClock& clock) {
  return nanobind::make_tuple(static_cast<int>(quality), clock.offset_ns(), clock.ppm(), clock.jitter_ns(),
                              clock.uncertainty_ns());
}

}  // namespace mmedge::bindings
