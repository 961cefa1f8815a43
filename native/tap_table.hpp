// Where an output row's taps lie in the bytes of a source row, as vector code wants to know it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "image_lanes.hpp"
#include "image_plan.hpp"

namespace mmedge {

// The taps of one row of the output, in blocks of as many pixels as the kernels handle at once. The last
// block ends with the row.
struct ColumnTaps {
  std::vector<std::uint32_t> taps;   // columns of the source: left and right of each pixel
  LineVector<std::int16_t> weights;  // of each, negative, -32768 is one
  std::vector<std::uint32_t> start;  // the first pixel of each block

  void plan(const StoredAxis& columns, std::size_t block);
  std::size_t count() const { return taps.size(); }
};

class TapTable {
 public:
  // `shared` columns lie on each sample, and samples `step` bytes after each other in a row of `row_bytes`,
  // 16 at least for vector code.
  void bytes(const ColumnTaps& columns, std::size_t shared, std::size_t step, std::size_t row_bytes);
  // The same of samples of two bytes.
  void pairs(const ColumnTaps& columns, std::size_t shared, std::size_t step, std::size_t row_bytes);
  // Of pixels of three bytes.
  void pixels(const ColumnTaps& columns, std::size_t row_bytes);
  Windows windows() const { return {place_.data(), offset_.data(), control_.data(), words_.data(), count_}; }

 private:
  void choose_windows(std::size_t row_bytes);
  bool pair_windows(std::size_t row_bytes, std::size_t halves);
  void word_controls();

  std::vector<std::uint32_t> place_, offset_;
  LineVector<std::uint8_t> control_, words_;
  std::size_t count_ = 0;
};

}  // namespace mmedge
