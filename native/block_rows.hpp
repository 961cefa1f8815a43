// Rows of block sums of a camera's picture.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "image_plan.hpp"
#include "pixel_rows.hpp"

namespace mmedge {

class BlockRows {
 public:
  explicit BlockRows(const ImageLanes& lanes) : lanes_(lanes) {}
  void bind(const ImagePlan& plan, PixelRows& rows, std::size_t channels);
  // Sums of row `y` of blocks, planar: channel c starts at c * plan.columns.blocks. Valid until the second
  // next.
  const float* row(std::size_t y);

 private:
  void add_pairs(std::size_t y, float* out);

  const ImageLanes& lanes_;
  const ImagePlan* plan_ = nullptr;
  PixelRows* rows_ = nullptr;
  std::size_t channels_ = 0;
  LineVector<std::uint16_t> sums_;  // of columns, over the rows of a block
  std::array<std::vector<float>, 2> block_;
  std::array<std::size_t, 2> held_{};
};

}  // namespace mmedge
