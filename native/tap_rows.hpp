// Rows of a camera's picture as the kernel blends them: of each row only what the output's columns need, as
// pairs of taps, in the colour of the output.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "aligned.hpp"
#include "block_rows.hpp"
#include "image_lanes.hpp"
#include "image_plan.hpp"
#include "pixel_rows.hpp"
#include "tap_table.hpp"

namespace mmedge {

class TapRows {
 public:
  explicit TapRows(Instructions instructions)
      : instructions_(instructions), pixels_(instructions), blocks_(image_lanes(instructions)) {}

  // Allocates where the plan or the format is another than before.
  void bind(const ImageView& view, Color color, const ImagePlan& plan);
  const ColumnTaps& columns() const { return columns_; }
  // Where a channel's taps begin in a row.
  std::size_t channel(std::size_t c) const { return plane_[c] * columns_.count(); }
  // What lies between two rows of the window, to the planes of the output.
  void blend(std::size_t above, std::size_t below, const Blend& blend);

 private:
  // Taps of row `y` of the plan's window, valid until the second next: bytes, or where the plan has blocks
  // their means with 7 fractional bits.
  const std::uint8_t* bytes(std::size_t y);
  const std::int16_t* means(std::size_t y);
  enum class Work { pixels, mix_gray, luma, expand_luma, yuv, means };
  void choose(std::size_t row_bytes);
  void plan_tables(const ImagePlan& plan);
  std::size_t rows_ahead() const;
  const std::int16_t* chroma(std::size_t y);
  // Taps of samples of 10 bits, as bytes.
  void take_deep(const std::uint8_t* row, const Windows& windows, bool chroma, std::uint8_t* out);

  Instructions instructions_;
  ImageView view_{};
  YuvLayout yuv_{};
  Work work_ = Work::pixels;
  std::uint64_t planned_ = 0;
  PixelFormat planned_format_ = PixelFormat::gray8;
  const ImageLanes* lanes_ = nullptr;
  const ImagePlan* plan_ = nullptr;
  Factors factors_{};
  float share_ = 0.0f;
  ColumnTaps columns_;
  TapTable table_, chroma_;
  std::array<std::size_t, 3> plane_{};
  PixelRows pixels_;
  BlockRows blocks_;
  LineVector<std::int16_t> mean_row_;
  LineVector<std::uint16_t> deep_;
  LineVector<std::uint8_t> loose_;  // taps on their way
  std::array<LineVector<std::uint8_t>, 2> bytes_;
  std::array<LineVector<std::int16_t>, 2> means_, terms_;
  std::array<std::size_t, 2> held_{}, terms_held_{};  // which row a slot holds
};

}  // namespace mmedge
