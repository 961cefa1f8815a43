// What the readers of tasks share at the border.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>

#include "bindings/score_arrays.hpp"
#include "interpret/classifier.hpp"

namespace mmedge::bindings {

// How a reader reports: Python's types and errors.
struct Reporting {
  nb::object label(int told) const {  // -1: none
    return told < 0 ? nb::object(nb::none()) : nb::object(labels[static_cast<std::size_t>(told)]);
  }

  nb::tuple labels;
  nb::object result;   // what it makes
  nb::object convert;  // makes float64 values of an output of another type, or raises
  nb::object refuse;   // raises for the smallest and the largest of scores that are no probabilities
};

// Calls `read` with the `n` values of an output, of whatever type they are.
template <typename Read>
void read_scores(const nb::object& output, std::size_t n, const Reporting& reporting, Read read) {
  Classifier::Refused refused;
  try {
    refused = with_scores(nb::cast<Input>(output), n, read);
  } catch (const std::invalid_argument&) {  // another number of them, another type, or not in one piece
    refused = with_scores(nb::cast<Input>(reporting.convert(output)), n, read);
  }
  if (refused) reporting.refuse(refused->first, refused->second);
}

inline std::int64_t time_of(nb::handle snapshot) { return nb::cast<std::int64_t>(snapshot.attr("t_ns")); }

}  // namespace mmedge::bindings
