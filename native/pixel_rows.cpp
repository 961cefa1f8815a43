#include "pixel_rows.hpp"

#include <algorithm>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
constexpr std::size_t kLargest = std::size_t{1} << 20;

// round((y - 16) * 255 / 219), clamped, as above + above * 12 / 73: the division is the upper half of
// a 16-bit product, which is one vector instruction.
constexpr std::uint8_t expand(std::uint8_t luma) {
  const auto above = std::max<std::int16_t>(static_cast<std::int16_t>(luma - 16), 0);
  const auto scaled = static_cast<std::uint16_t>(above * 12 + 36);
  const auto share = static_cast<std::int16_t>((static_cast<std::uint32_t>(scaled) * 898u) >> 16);
  return static_cast<std::uint8_t>(std::min<std::int16_t>(static_cast<std::int16_t>(above + share), 255));
}

constexpr bool expand_is_exact() {
  for (int luma = 0; luma < 256; ++luma) {
    const int above = luma > 16 ? luma - 16 : 0;
    const int exact = (above * 510 + 219) / 438;
    if (expand(static_cast<std::uint8_t>(luma)) != (exact < 255 ? exact : 255)) return false;
  }
  return true;
}
static_assert(expand_is_exact());

void expand_luma(const std::uint8_t* __restrict luma, std::size_t width, std::uint8_t* __restrict out) {
  for (std::size_t x = 0; x < width; ++x) out[x] = expand(luma[x]);
}

void mix_gray(const std::uint8_t* __restrict pixels, std::size_t width, bool bgr,
              std::uint8_t* __restrict out) {
  const int first = bgr ? 1868 : 4899, third = bgr ? 4899 : 1868;
  for (std::size_t x = 0; x < width; ++x) {
    const std::uint8_t* pixel = pixels + 3 * x;
    out[x] = static_cast<std::uint8_t>((first * pixel[0] + 9617 * pixel[1] + third * pixel[2] + 8192) >> 14);
  }
}

// BT.601 with 13 fractional bits: every factor fits 16 bits, so products are cheap vector operations.
struct Matrix {
  std::int16_t black, luma, red_v, green_u, green_v, blue_u;
};
constexpr Matrix kLimited{16, 9539, 13075, 3209, 6660, 16525};
constexpr Matrix kFull{0, 8192, 11485, 2819, 5850, 14516};

std::uint8_t clamp13(int value) {
  const auto rounded = static_cast<std::int16_t>((value + 4096) >> 13);
  return static_cast<std::uint8_t>(std::clamp<std::int16_t>(rounded, 0, 255));
}

// Blocks of one shape with the chroma spread out first, so that each loop is a vector loop.
template <std::size_t kStep>
void convert_yuv(const std::uint8_t* __restrict luma, const std::uint8_t* __restrict u,
                 const std::uint8_t* __restrict v, std::size_t width, const Matrix& matrix,
                 std::uint8_t* __restrict red, std::uint8_t* __restrict green,
                 std::uint8_t* __restrict blue) {
  constexpr std::size_t kBlock = 128;
  const Matrix m = matrix;
  std::int16_t cu[kBlock], cv[kBlock];
  for (std::size_t start = 0; start < width; start += kBlock) {
    const std::size_t n = std::min(kBlock, width - start);
    for (std::size_t i = 0; i < n / 2; ++i) {
      const std::size_t at = kStep * (start / 2 + i);
      cu[2 * i] = cu[2 * i + 1] = static_cast<std::int16_t>(u[at] - 128);
      cv[2 * i] = cv[2 * i + 1] = static_cast<std::int16_t>(v[at] - 128);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const auto above = std::max<std::int16_t>(static_cast<std::int16_t>(luma[start + i] - m.black), 0);
      const int gray = m.luma * above;
      red[start + i] = clamp13(gray + m.red_v * cv[i]);
      green[start + i] = clamp13(gray - m.green_u * cu[i] - m.green_v * cv[i]);
      blue[start + i] = clamp13(gray + m.blue_u * cu[i]);
    }
  }
}

}  // namespace

void PixelRows::bind(const ImageView& view, Color color) {
  const bool planar = view.format == PixelFormat::yuv420p || view.format == PixelFormat::nv12;
  const bool interleaved = view.format == PixelFormat::bgr24 || view.format == PixelFormat::rgb24;
  if (view.width == 0 || view.height == 0) throw std::invalid_argument("the frame is empty");
  if (view.width > kLargest || view.height > kLargest) throw std::invalid_argument("the frame is too large");
  if (planar && (view.width % 2 != 0 || view.height % 2 != 0))
    throw std::invalid_argument("yuv420p and nv12 frames need an even width and height");
  const std::size_t width = view.width;
  if (interleaved && color != Color::gray) {
    work_ = Work::none;
    const bool swap = (view.format == PixelFormat::bgr24) != (color == Color::bgr);
    layout_ = {3 * width, 3, {swap ? 2u : 0u, 1u, swap ? 0u : 2u}};
  } else if (planar && color != Color::gray) {
    work_ = Work::convert_yuv;
    const bool swap = color == Color::bgr;
    layout_ = {3 * width, 1, {swap ? 2 * width : 0, width, swap ? 0 : 2 * width}};
  } else {
    work_ = interleaved ? Work::mix_gray : view.full_range ? Work::none : Work::expand_luma;
    layout_ = {width, 1, {0, 0, 0}};  // gray shown in colour: the same byte three times
  }
  view_ = view;
  held_ = {kNone, kNone};
  if (work_ != Work::none)
    for (auto& scratch : scratch_) scratch.resize(std::max(scratch.size(), layout_.bytes));
}

const std::uint8_t* PixelRows::row(std::size_t y) {
  const bool interleaved = view_.format == PixelFormat::bgr24 || view_.format == PixelFormat::rgb24;
  if (work_ == Work::none) return view_.data + y * view_.width * (interleaved ? 3 : 1);
  std::uint8_t* const scratch = scratch_[y % 2].data();
  if (held_[y % 2] != y) {
    convert(y, scratch);
    held_[y % 2] = y;
  }
  return scratch;
}

void PixelRows::convert(std::size_t y, std::uint8_t* out) const {
  const std::size_t width = view_.width;
  if (work_ == Work::expand_luma) return expand_luma(view_.data + y * width, width, out);
  if (work_ == Work::mix_gray)
    return mix_gray(view_.data + y * width * 3, width, view_.format == PixelFormat::bgr24, out);
  const std::uint8_t* const luma = view_.data + y * width;
  const std::uint8_t* const chroma = view_.data + width * view_.height;
  const Matrix& matrix = view_.full_range ? kFull : kLimited;
  if (view_.format == PixelFormat::nv12) {
    const std::uint8_t* uv = chroma + (y / 2) * width;
    convert_yuv<2>(luma, uv, uv + 1, width, matrix, out, out + width, out + 2 * width);
  } else {
    const std::uint8_t* u = chroma + (y / 2) * (width / 2);
    const std::uint8_t* v = u + (width / 2) * (view_.height / 2);
    convert_yuv<1>(luma, u, v, width, matrix, out, out + width, out + 2 * width);
  }
}

}  // namespace mmedge
