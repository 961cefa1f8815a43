// What a GPU needs to know to make a network's input of a camera's pictures, worked out once for their
// geometry.
#pragma once

#include <vector>

#include "cuda/picture_pixel.hpp"
#include "image.hpp"

namespace mmedge::cuda {

struct PictureTable {
  // `view.data` is not read. Throws std::invalid_argument for what the CPU's kernel refuses.
  PictureTable(const ImageKernel& kernel, const ImageView& view, const ImagePlan& plan);

  Picture picture;
  std::vector<Tap> rows, columns;
};

}  // namespace mmedge::cuda
