// A mixer at the border.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <vector>

#include "capture/mixer.hpp"

namespace mmedge::bindings {

// (whether it is silent, how many channels it is the mean of, decibels, number of the loudest of all)
inline nanobind::tuple told(const Mixer::Weak& weak) {
  return nanobind::make_tuple(weak.silent, weak.channels, weak.decibels, weak.loudest);
}

inline std::vector<std::size_t> channel_list(const nanobind::sequence& channels) {
  std::vector<std::size_t> numbers;
  for (const nanobind::handle number : channels) numbers.push_back(nanobind::cast<std::size_t>(number));
  return numbers;
}

}  // namespace mmedge::bindings
