// Rows of block sums of a camera's picture.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "image_lanes.hpp"
#include "image_plan.hpp"
#include "pixel_rows.hpp"

namespace mmedge {

class BlockRows {
 public:
  explicit BlockRows(const ImageLanes& lanes) : lanes_(lanes) {}

  void bind(const ImagePlan& plan, PixelRows& rows);
  // Whether sums fit 16 bits: then `sums` can be asked for, else only `row`.
  bool small() const { return plan_->rows.block * plan_->columns.block <= 256; }
  // Row `y` of blocks: the sum of block x of channel c is number at(c) + x * step(). Valid until the second
  // next.
  const std::uint16_t* sums(std::size_t y);
  std::size_t at(std::size_t c) const;
  std::size_t step() const;
  // Sums of row `y` of blocks, each once: interleaved as the pixels are, or channel c from c *
  // plan.columns.blocks on.
  const float* row(std::size_t y);

 private:
  // Of planar rows in blocks of an even width, half of the columns are summed at once.
  bool paired() const { return rows_->layout().stride == 1 && plan_->columns.block % 2 == 0; }

  std::size_t add_rows(std::size_t y);

  const ImageLanes& lanes_;
  const ImagePlan* plan_ = nullptr;
  PixelRows* rows_ = nullptr;
  LineVector<std::uint16_t> columns_;  // sums of columns over the rows of a block
  std::array<LineVector<std::uint16_t>, 2> sums_;
  std::array<std::vector<float>, 2> row_;
  std::array<std::size_t, 2> held_{}, row_held_{};
};

}  // namespace mmedge
