// One row of any pixel format as full-range u8 pixels, converted only when it must be.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "aligned.hpp"
#include "image_lanes.hpp"
#include "pixel_factors.hpp"

namespace mmedge {

// Of 10 bits: samples of two bytes, the lower one first; in p010 the upper 10 bits, in yuv420p10 the lower.
enum class PixelFormat { gray8, bgr24, rgb24, yuv420p, nv12, yuv422p, yuv444p, yuyv422, p010, yuv420p10 };
constexpr PixelFormat kLastFormat = PixelFormat::yuv420p10;
enum class Color { gray, rgb, bgr };
// What turns luma and chroma into red, green and blue.
enum class Matrix { bt601, bt709, fcc, smpte240m, bt2020 };

std::size_t bytes_of(PixelFormat format, std::size_t width, std::size_t height);

// A camera's frame, planes packed one after the other, not owned.
struct ImageView {
  const std::uint8_t* data;
  PixelFormat format;
  std::size_t width, height;
  bool full_range;  // false: luma spans 16..235
  Matrix matrix = Matrix::bt601;
};

// Where luma and chroma lie in memory: row y of luma at luma + y * luma_bytes, rows of chroma likewise at u
// and v.
struct YuvLayout {
  const std::uint8_t *luma, *u, *v;
  std::size_t luma_bytes, chroma_bytes;
  std::size_t luma_step, chroma_step;  // bytes from one sample to the next
  std::size_t across, down;            // columns and rows that share a sample of chroma
  std::size_t reach;                   // bytes from the first sample of a row of v to its end
  bool pairs;                          // u and v in turn
  bool deep;                           // samples of 10 bits in two bytes
  std::int32_t shift;                  // of such
};

// Of any format but interleaved colour; of gray frames luma alone.
YuvLayout yuv_layout(const ImageView& view);
Factors factors_of(const ImageView& view);

void mix_gray(const std::uint8_t* red, const std::uint8_t* green, const std::uint8_t* blue, std::size_t n,
              std::uint8_t* out);

// How the channels lie in a row: channel c of pixel x is byte offset[c] + x * stride.
struct RowLayout {
  std::size_t bytes, stride;
  std::array<std::size_t, 3> offset;
};

// Rows of `color`, in the frame's own memory where that already is the answer (interleaved pixels of
// another order, full-range luma), else in two scratch rows; chroma by nearest neighbour.
class PixelRows {
 public:
  explicit PixelRows(Instructions instructions) : lanes_(image_lanes(instructions)) {}

  // Throws std::invalid_argument if the frame cannot exist (empty, or odd with subsampled chroma).
  void bind(const ImageView& view, Color color);
  const RowLayout& layout() const { return layout_; }
  // Valid until the second next row is asked for.
  const std::uint8_t* row(std::size_t y);

 private:
  enum class Work { none, copy_luma, expand_luma, mix_gray, convert_yuv };
  void convert(std::size_t y, std::uint8_t* out);
  // A row of one plane as bytes, each for `shared` pixels; `from` itself where it is that already.
  const std::uint8_t* samples(const std::uint8_t* from, std::size_t step, std::size_t shared, bool chroma,
                              std::uint8_t* out) const;

  const ImageLanes& lanes_;
  ImageView view_{};
  YuvLayout yuv_{};
  RowLayout layout_{};
  Work work_ = Work::none;
  std::array<LineVector<std::uint8_t>, 2> scratch_;
  LineVector<std::uint8_t> spread_;  // chroma of each pixel, and luma of whole vectors
  LineVector<std::int16_t> terms_;
  std::size_t terms_held_ = 0;
  std::array<std::size_t, 2> held_{};  // which row a scratch row holds
};

}  // namespace mmedge
