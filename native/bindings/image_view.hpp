// A camera's picture at the border.
#pragma once

#include <cstddef>
#include <string>

#include "bindings/arrays.hpp"
#include "image.hpp"

namespace mmedge::bindings {

// Each throws std::invalid_argument for a name that it does not know.
PixelFormat parse_format(const std::string& name);
Matrix parse_matrix(const std::string& name);
// Throws std::invalid_argument unless `data` is a picture of that format and size.
ImageView view_of_picture(const Input& data, PixelFormat format, std::size_t width, std::size_t height,
                          Matrix matrix, bool full_range);
// Writes what the kernel makes of a picture, without the GIL; throws std::invalid_argument unless `out` is
// float32 [1, channels, height, width], or uint8 [1, frame height, frame width, channels].
void write_tensor(ImageKernel& kernel, const ImageView& picture, const ImagePlan& plan, const Output& out);
void write_raw(ImageKernel& kernel, const ImageView& picture, const ImagePlan& plan, const Output& out);

}  // namespace mmedge::bindings
