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

void mix_gray(const std::uint8_t* __restrict pixels, std::size_t width, bool bgr,
              std::uint8_t* __restrict out) {
  const int first = bgr ? 1868 : 4899, third = bgr ? 4899 : 1868;
  for (std::size_t x = 0; x < width; ++x) {
    const std::uint8_t* pixel = pixels + 3 * x;
    out[x] = static_cast<std::uint8_t>((first * pixel[0] + 9617 * pixel[1] + third * pixel[2] + 8192) >> 14);
  }
}

// From the shares of red and blue in the luma.
constexpr Factors factors(double red, double blue, bool full_range) {
  const auto fixed = [](double value) { return static_cast<std::int16_t>(value * 8192.0 + 0.5); };
  const double luma = full_range ? 1.0 : 255.0 / 219.0, chroma = full_range ? 1.0 : 255.0 / 224.0;
  const double green = 1.0 - red - blue, red_v = 2.0 * (1.0 - red) * chroma,
               blue_u = 2.0 * (1.0 - blue) * chroma;
  return {static_cast<std::int16_t>(full_range ? 0 : 16),
          fixed(luma),
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

std::uint8_t clamp13(int value) {
  const auto rounded = static_cast<std::int16_t>((value + 4096) >> 13);
  return static_cast<std::uint8_t>(std::clamp<std::int16_t>(rounded, 0, 255));
}

// Blocks of one shape with the chroma spread out first, so that each loop is a vector loop.
// kStep: bytes from one chroma sample to the next; kShared: pixels that share one.
template <std::size_t kStep, std::size_t kShared>
void convert_yuv(const std::uint8_t* __restrict luma, const std::uint8_t* __restrict u,
                 const std::uint8_t* __restrict v, std::size_t width, const Factors& given,
                 std::uint8_t* __restrict red, std::uint8_t* __restrict green,
                 std::uint8_t* __restrict blue) {
  constexpr std::size_t kBlock = 128;
  const Factors m = given;
  std::int16_t cu[kBlock], cv[kBlock];
  for (std::size_t start = 0; start < width; start += kBlock) {
    const std::size_t n = std::min(kBlock, width - start);
    for (std::size_t i = 0; i < n / kShared; ++i) {
      const std::size_t at = kStep * (start / kShared + i);
      for (std::size_t j = 0; j < kShared; ++j) {
        cu[kShared * i + j] = static_cast<std::int16_t>(u[at] - 128);
        cv[kShared * i + j] = static_cast<std::int16_t>(v[at] - 128);
      }
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

void expand_luma(const std::uint8_t* __restrict luma, std::size_t n, std::uint8_t* __restrict out) {
  for (std::size_t x = 0; x < n; ++x) out[x] = expand(luma[x]);
}

void mix_gray(const std::uint8_t* __restrict red, const std::uint8_t* __restrict green,
              const std::uint8_t* __restrict blue, std::size_t n, std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<std::uint8_t>((4899 * red[i] + 9617 * green[i] + 1868 * blue[i] + 8192) >> 14);
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
  const YuvLayout from = yuv_layout(view_);
  const std::uint8_t* const luma = from.luma + y * from.luma_bytes;
  const std::uint8_t* const u = from.u + y / from.down * from.chroma_bytes;
  const std::uint8_t* const v = from.v + y / from.down * from.chroma_bytes;
  const Factors m = factors_of(view_);
  std::uint8_t* const green = out + width;
  std::uint8_t* const blue = out + 2 * width;
  if (from.across == 1) return convert_yuv<1, 1>(luma, u, v, width, m, out, green, blue);
  if (!from.pairs) return convert_yuv<1, 2>(luma, u, v, width, m, out, green, blue);
  convert_yuv<2, 2>(luma, u, v, width, m, out, green, blue);
}

}  // namespace mmedge
