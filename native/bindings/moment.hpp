// A trigger and the Python objects that it came as.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <stdexcept>

#include "graph/moment.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

struct PythonMoment final : Moment {
  explicit PythonMoment(std::size_t seats) : Moment(seats) {
    if (seats > kMaxSeats) throw std::invalid_argument("too many seats");
  }

  nb::object snapshot = nb::none(), read_audio = nb::none();
  nb::object note = nb::none();  // called with each stage that was fed, by name, and the snapshot
};

}  // namespace mmedge::bindings
