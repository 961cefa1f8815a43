// Where the pixels of a network's input come from: one affine map per axis, blocks that are averaged, and
// how the stored picture is turned to be upright. Made once for a camera's geometry.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmedge {

// One axis of the picture as it is shown. Pixel i of the `length` pixels from `start` on lies at
// (i + 0.5) * step + shift of the window, in blocks; the window is `count` blocks from block `first` on. With
// `cell`, all pixels of a cell of that length, the first of which begins at `cell_first`, lie at its centre.
struct Axis {
  std::size_t camera;  // pixels of the camera's picture
  std::size_t block;   // pixels that are averaged
  std::size_t first, count;
  double step, shift;
  std::size_t start, length, out;       // part of the output that is filled, and its whole side
  double cell = 0.0, cell_first = 0.0;  // in pixels of the output, from `start` on
};

// Bilinear taps of one axis, edges of the window repeated: in the order in which the picture is stored, or of
// columns in that of the output's row that they become.
struct Taps {
  std::vector<std::uint32_t> left, right;
  std::vector<float> weight;  // of the right neighbour

  void plan(const Axis& axis, bool flip);
};

// An axis of the stored picture.
struct StoredAxis {
  std::size_t camera, block;
  std::size_t origin;  // first pixel of the first block
  std::size_t blocks;
  std::size_t first;  // block at which the window begins
  double step;        // blocks from one pixel of the output to the next
  Taps taps;

  std::size_t length() const { return taps.left.size(); }
};

class ImagePlan {
 public:
  // `swap`: rows that are shown are stored columns. `flip_rows`, `flip_columns`: what is shown last is stored
  // first. Throws std::invalid_argument if the axes contradict themselves.
  ImagePlan(const Axis& rows, const Axis& columns, bool swap, bool flip_rows, bool flip_columns);

  // Element (y, x) of what the taps give goes to pixel base + y * row_step + x * column_step of the output.
  std::ptrdiff_t base, row_step, column_step;
  StoredAxis rows, columns;
  Axis shown_rows, shown_columns;
  std::uint64_t id;  // of this plan alone: what is made of it need not be made again
  bool whole;        // the output is filled: there is no margin
  bool copy;         // every pixel of the output is one of the camera's, in its order

  bool blocked() const { return rows.block > 1 || columns.block > 1; }
  bool upright() const { return column_step == 1; }
  std::ptrdiff_t row_at(std::size_t y) const { return base + static_cast<std::ptrdiff_t>(y) * row_step; }
};

}  // namespace mmedge
