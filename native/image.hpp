// Camera frame -> network input: colour, area reduction, bilinear resize and normalisation in one pass.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "pixel_rows.hpp"

namespace mmedge {

struct Box {
  std::size_t top, left, height, width;
};

struct ImageSpec {
  std::size_t frame_height, frame_width;  // of the raw frame
  Color color;
  std::size_t reduce;            // side of the blocks that are averaged
  Box crop;                      // part of the reduced frame that is used
  Box target;                    // part of the output that it fills
  std::size_t height, width;     // of the output
  std::vector<float> mean, std;  // per channel, in units of 0..1

  std::size_t channels() const { return color == Color::gray ? 1 : 3; }
};

// Bilinear taps of one axis, half-pixel centres, edges repeated.
struct Taps {
  std::vector<std::uint32_t> left, right;
  std::vector<float> weight;  // of the right neighbour

  void plan(std::size_t size, std::size_t source);
};

// Allocates when it is made and when a camera's geometry changes, never otherwise.
// Calls from several threads take turns.
class ImageKernel {
 public:
  explicit ImageKernel(const ImageSpec& spec);

  const ImageSpec& spec() const { return spec_; }
  // Writes float32 [channels, height, width].
  void tensor(const ImageView& view, float* out);
  // Writes u8 [frame_height, frame_width, channels].
  void raw(const ImageView& view, std::uint8_t* out);

 private:
  void convert(std::uint8_t* out);
  void resize(const ImageView& view, std::uint8_t* out);
  void clear_margin(float* out) const;
  void planar_columns(std::size_t y, const std::array<std::size_t, 3>& offset, float* out) const;
  void interleaved_columns(std::size_t y, const std::array<std::size_t, 3>& offset, float* out) const;
  float* target_row(std::size_t channel, std::size_t y, float* out) const;
  const float* reduced_row(std::size_t y);

  ImageSpec spec_;
  std::vector<float> scale_, bias_;
  Taps rows_plan_, columns_plan_;  // reduced frame -> target box
  std::size_t camera_height_ = 0, camera_width_ = 0;
  Taps camera_rows_, camera_columns_;  // camera -> frame
  PixelRows rows_;
  std::vector<float> blended_;                 // one row between two source rows
  std::vector<float> line_;                    // one row of the raw frame before rounding
  std::vector<std::uint16_t> sums_;            // column sums over `reduce` rows
  std::array<std::vector<float>, 2> reduced_;  // planar rows of block sums
  std::array<std::size_t, 2> reduced_held_{};
  std::vector<std::uint8_t> frame_;  // raw frame, when the camera has another size
  std::mutex mutex_;
};

}  // namespace mmedge
