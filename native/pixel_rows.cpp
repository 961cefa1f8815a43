#include "pixel_rows.hpp"

#include <algorithm>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
constexpr std::size_t kLargest = std::size_t{1} << 20;

// From the shares of red and blue in the luma.
constexpr Factors factors(double red, double blue, bool full_range) {
  const auto fixed = [](double value) { return static_cast<std::int16_t>(value * 8192.0 + 0.5); };
  const double luma = full_range ? 1.0 : 255.0 / 219.0, chroma = full_range ? 1.0 : 255.0 / 224.0;
  const double green = 1.0 - red - blue, red_v = 2.0 * (1.0 - red) * chroma,
               blue_u = 2.0 * (1.0 - blue) * chroma;
  return {static_cast<std::int16_t>(full_range ? 0 : 16),
          static_cast<std::int16_t>(luma * 16384.0 + 0.5),
          fixed(red_v),
          fixed(blue_u * blue / green),
          fixed(red_v * red / green),
          fixed(blue_u)};
}

struct Shares {
  double red, blue;
};
// In the order of Matrix: ITU-R BT.601, BT.709, FCC 73.682, SMPTE 240M, BT.2020 with non-constant luminance.
constexpr Shares kShares[] = {
    {0.299, 0.114}, {0.2126, 0.0722}, {0.30, 0.11}, {0.212, 0.087}, {0.2627, 0.0593}};

// Chroma of one row for each pixel. `step`: bytes from one sample to the next.
void spread(const std::uint8_t* __restrict from, std::size_t step, std::size_t shared, std::size_t width,
            std::uint8_t* __restrict out) {
  if (shared == 1) {
    std::copy(from, from + width, out);
    return;
  }
  for (std::size_t i = 0; i < width / 2; ++i) out[2 * i] = out[2 * i + 1] = from[i * step];
}

}  // namespace

YuvLayout yuv_layout(const ImageView& view) {
  const std::size_t width = view.width, pixels = width * view.height;
  const std::uint8_t* const chroma = view.data + pixels;
  YuvLayout layout{view.data, chroma, chroma, width, width, 1, 1, view.format == PixelFormat::nv12};
  if (view.format == PixelFormat::yuv444p) layout.v = chroma + pixels;
  if (layout.pairs) layout.v = chroma + 1, layout.across = layout.down = 2;
  if (view.format == PixelFormat::yuv420p || view.format == PixelFormat::yuv422p) {
    layout.across = 2, layout.chroma_bytes = width / 2;
    layout.down = view.format == PixelFormat::yuv420p ? 2 : 1;
    layout.v = chroma + pixels / 2 / layout.down;
  }
  return layout;
}

Factors factors_of(const ImageView& view) {
  const Shares shares = kShares[static_cast<std::size_t>(view.matrix)];
  return factors(shares.red, shares.blue, view.full_range);
}

void mix_gray(const std::uint8_t* __restrict red, const std::uint8_t* __restrict green,
              const std::uint8_t* __restrict blue, std::size_t n, std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = gray_of(red[i], green[i], blue[i]);
}

void PixelRows::bind(const ImageView& view, Color color) {
  const PixelFormat format = view.format;
  const bool interleaved = format == PixelFormat::bgr24 || format == PixelFormat::rgb24;
  const bool planar = !interleaved && format != PixelFormat::gray8;
  if (view.width == 0 || view.height == 0) throw std::invalid_argument("the frame is empty");
  if (view.width > kLargest || view.height > kLargest) throw std::invalid_argument("the frame is too large");
  const bool quartered = format == PixelFormat::yuv420p || format == PixelFormat::nv12;
  if (quartered && (view.width % 2 != 0 || view.height % 2 != 0))
    throw std::invalid_argument("yuv420p and nv12 frames need an even width and height");
  if (format == PixelFormat::yuv422p && view.width % 2 != 0)
    throw std::invalid_argument("yuv422p frames need an even width");
  const std::size_t width = view.width;
  if (interleaved && color != Color::gray) {
    work_ = Work::none;
    const bool swap = (format == PixelFormat::bgr24) != (color == Color::bgr);
    layout_ = {3 * width, 3, {swap ? 2u : 0u, 1u, swap ? 0u : 2u}};
  } else if (planar && color != Color::gray) {
    work_ = Work::convert_yuv;
    const bool swap = color == Color::bgr;
    const std::size_t n = (width + 15) / 16 * 16;  // whole vectors
    layout_ = {3 * n, 1, {swap ? 2 * n : 0, n, swap ? 0 : 2 * n}};
    if (terms_.size() < 3 * n) terms_.resize(3 * n);
    if (spread_.size() < 3 * n) spread_.resize(3 * n);
  } else {
    work_ = interleaved ? Work::mix_gray : view.full_range ? Work::none : Work::expand_luma;
    layout_ = {width, 1, {0, 0, 0}};  // gray shown in colour: the same byte three times
  }
  view_ = view;
  held_ = {kNone, kNone}, terms_held_ = kNone;
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

void PixelRows::convert(std::size_t y, std::uint8_t* out) {
  const std::size_t width = view_.width, n = layout_.bytes / 3;
  if (work_ == Work::expand_luma) return lanes_.expand(view_.data + y * width, width, out);
  if (work_ == Work::mix_gray)
    return lanes_.mix(view_.data + y * width * 3, width, view_.format == PixelFormat::bgr24, out);
  const YuvLayout from = yuv_layout(view_);
  const Factors m = factors_of(view_);
  const std::uint8_t* luma = from.luma + y * from.luma_bytes;
  std::uint8_t *const u = spread_.data(), *const v = u + n, *const padded = v + n;
  if (terms_held_ != y / from.down) {
    terms_held_ = y / from.down;
    const std::size_t row = terms_held_ * from.chroma_bytes, step = from.pairs ? 2 : 1;
    spread(from.u + row, step, from.across, width, u);
    spread(from.v + row, step, from.across, width, v);
    lanes_.chroma(u, v, n, m, terms_.data());
  }
  if (n != width) luma = std::copy(luma, luma + width, padded) - width;  // nothing beyond the frame is read
  lanes_.colour(luma, terms_.data(), n, m, out);
}

}  // namespace mmedge
