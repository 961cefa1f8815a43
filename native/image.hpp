// Camera frame -> network input: colour, area reduction, turning, bilinear resize and normalisation in one
// pass.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "block_rows.hpp"
#include "image_plan.hpp"
#include "instructions.hpp"
#include "pixel_rows.hpp"
#include "tap_rows.hpp"

namespace mmedge {

struct ImageSpec {
  std::size_t frame_height, frame_width;  // of the raw frame
  Color color;
  std::size_t height, width;     // of the output
  std::vector<float> mean, std;  // per channel, in units of 0..1

  std::size_t channels() const { return color == Color::gray ? 1 : 3; }
};

// Allocates when it is made and when a camera's geometry changes, never otherwise.
// Calls from several threads take turns.
class ImageKernel {
 public:
  // `instructions`: of those that this process can use; each gives the same bits.
  explicit ImageKernel(const ImageSpec& spec, Instructions instructions = usable_instructions().front());

  const ImageSpec& spec() const { return spec_; }
  // Of each channel: a weighted sum of bytes times `scale`, plus `bias`, is the number that is written.
  const std::array<float, 3>& scale() const { return scale_; }
  const std::array<float, 3>& bias() const { return bias_; }
  // Writes float32 [channels, height, width]; what the plan does not fill is 0.
  void tensor(const ImageView& view, const ImagePlan& plan, float* out);
  // Writes u8 [frame_height, frame_width, channels]; what the plan does not fill has the mean colour.
  void raw(const ImageView& view, const ImagePlan& plan, std::uint8_t* out);

 private:
  // One row of the plan between two rows of blocks, planar or interleaved.
  struct Blended {
    std::size_t stride;
    std::array<std::size_t, 3> offset;
  };

  void check(const ImageView& view, const ImagePlan& plan, std::size_t height, std::size_t width) const;
  void bind(const ImageView& view, const ImagePlan& plan);
  void copy(std::uint8_t* out);
  Blended blend_row(const ImagePlan& plan, std::size_t y);
  // Row `y` of the plan to one row of each plane of `out`, which follow each other after `distance` numbers.
  void tensor_row(const ImagePlan& plan, std::size_t y, float* out, std::size_t distance);
  void turned_rows(const ImagePlan& plan, float* out);
  void clear_margin(const ImagePlan& plan, float* out) const;
  void fill_margin(const ImagePlan& plan, std::uint8_t* out) const;
  void raw_columns(const ImagePlan& plan, const Blended& row, std::size_t y, std::uint8_t* out);

  ImageSpec spec_;
  std::array<float, 3> scale_{}, bias_{};
  std::array<std::uint8_t, 3> margin_{};
  TapRows taps_;
  PixelRows rows_;
  std::vector<float> blended_;         // one row between two source rows
  std::vector<float> line_;            // rows of the output as they are stored, where it has them as columns
  std::vector<std::uint8_t> rounded_;  // the same of the raw frame
  BlockRows blocks_;
  const FloatLoops& loops_;
  std::mutex mutex_;
};

}  // namespace mmedge
