// What the readers of tasks share at the border.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/score_arrays.hpp"
#include "interpret/classifier.hpp"
#include "results/task_told.hpp"

namespace mmedge::bindings {

// Reads the output of one task, and tells what it says.
class TaskReader {
 public:
  virtual ~TaskReader() = default;
  // Takes up an output; what it took up before, and did not tell, is forgotten.
  virtual void read(const nb::object& output, nb::handle snapshot) = 0;
  // What was read, smoothed; once, for the smoothing moves on.
  virtual TaskTold tell(nb::handle snapshot) = 0;
  virtual void reset() = 0;
};

// Python's errors, and its word on arrays that are not plain.
struct Complaints {
  nb::object convert;  // makes float64 values of an output of another type, or raises
  nb::object refuse;   // raises for the smallest and the largest of scores that are no probabilities
};

// Calls `read` with the `n` values of an output, of whatever type they are.
template <typename Read>
void read_scores(const nb::object& output, std::size_t n, const Complaints& complaints, Read read) {
  Classifier::Refused refused;
  try {
    refused = with_scores(nb::cast<Input>(output), n, read);
  } catch (const std::invalid_argument&) {  // another number of them, another type, or not in one piece
    refused = with_scores(nb::cast<Input>(complaints.convert(output)), n, read);
  }
  if (refused) complaints.refuse(refused->first, refused->second);
}

inline std::int64_t time_of(nb::handle snapshot) { return nb::cast<std::int64_t>(snapshot.attr("t_ns")); }

}  // namespace mmedge::bindings
