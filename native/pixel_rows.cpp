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

// A row of samples as bytes, each for `shared` pixels: 1 or 2. A function of its own, so that no store into
// `out` makes the compiler read again what the row is.
template <bool kDeep>
void spread(const std::uint8_t* __restrict from, std::size_t step, std::size_t shared, std::size_t n,
            Narrowing to, std::uint8_t* __restrict out) {
  const auto value = [=](std::size_t i) {
    const std::uint8_t* const at = from + i * step;
    return static_cast<std::uint8_t>(kDeep ? narrowed(at[0] | at[1] << 8, to.shift, to.factor, to.bias)
                                           : at[0]);
  };
  if (shared == 1)
    for (std::size_t i = 0; i < n; ++i) out[i] = value(i);
  else
    for (std::size_t i = 0; i < n; ++i) out[2 * i] = out[2 * i + 1] = value(i);
}

}  // namespace

std::size_t bytes_of(PixelFormat format, std::size_t width, std::size_t height) {
  const std::size_t pixels = width * height;
  switch (format) {
    case PixelFormat::gray8:
      return pixels;
    case PixelFormat::yuv420p:
    case PixelFormat::nv12:
      return pixels + pixels / 2;
    case PixelFormat::yuv422p:
    case PixelFormat::yuyv422:
      return 2 * pixels;
    default:
      return 3 * pixels;
  }
}

YuvLayout yuv_layout(const ImageView& view) {
  const std::size_t width = view.width, pixels = width * view.height;
  const std::uint8_t* const data = view.data;
  const auto planes = [&](std::size_t across, std::size_t down, std::size_t bytes) {
    const std::size_t row = width / across * bytes;
    const std::uint8_t* const u = data + pixels * bytes;
    return YuvLayout{data,
                     u,
                     u + row * (view.height / down),
                     width * bytes,
                     row,
                     bytes,
                     bytes,
                     across,
                     down,
                     row,
                     false,
                     bytes == 2,
                     0};
  };
  switch (view.format) {
    case PixelFormat::yuyv422:
      return {data, data + 1, data + 3, 2 * width, 2 * width, 2, 4, 2, 1, 2 * width - 3, false, false, 0};
    case PixelFormat::nv12:
      return {data, data + pixels, data + pixels + 1, width, width, 1, 2, 2, 2, width, true, false, 0};
    case PixelFormat::p010: {
      const std::uint8_t* const u = data + 2 * pixels;
      return {data, u, u + 2, 2 * width, 2 * width, 2, 4, 2, 2, 2 * width - 2, false, true, 6};
    }
    case PixelFormat::yuv420p:
      return planes(2, 2, 1);
    case PixelFormat::yuv420p10:
      return planes(2, 2, 2);
    case PixelFormat::yuv422p:
      return planes(2, 1, 1);
    default:
      return planes(1, 1, 1);
  }
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
  yuv_ = interleaved ? YuvLayout{} : yuv_layout(view);
  if (planar && (view.width % yuv_.across != 0 || view.height % yuv_.down != 0))
    throw std::invalid_argument(yuv_.down == 2
                                    ? "yuv420p, nv12 and 10-bit frames need an even width and height"
                                    : "yuv422p and yuyv422 frames need an even width");
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
    const bool plain = yuv_.luma_step == 1;
    work_ = interleaved        ? Work::mix_gray
            : !view.full_range ? Work::expand_luma
            : plain            ? Work::none
                               : Work::copy_luma;
    layout_ = {width, 1, {0, 0, 0}};  // gray shown in colour: the same byte three times
  }
  view_ = view;
  held_ = {kNone, kNone}, terms_held_ = kNone;
  if (!interleaved && spread_.size() < width) spread_.resize(width);
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

const std::uint8_t* PixelRows::samples(const std::uint8_t* from, std::size_t step, std::size_t shared,
                                       bool chroma, std::uint8_t* out) const {
  if (step == 1 && shared == 1) return from;
  const auto by = yuv_.deep ? spread<true> : spread<false>;
  by(from, step, shared, view_.width / shared, narrowing_of(yuv_.shift, view_.full_range, chroma), out);
  return out;
}

void PixelRows::convert(std::size_t y, std::uint8_t* out) {
  const std::size_t width = view_.width, n = layout_.bytes / 3;
  if (work_ == Work::mix_gray)
    return lanes_.mix(view_.data + y * width * 3, width, view_.format == PixelFormat::bgr24, out);
  const std::uint8_t* luma = yuv_.luma + y * yuv_.luma_bytes;
  if (work_ == Work::copy_luma) {
    samples(luma, yuv_.luma_step, 1, false, out);
    return;
  }
  if (work_ == Work::expand_luma)
    return lanes_.expand(samples(luma, yuv_.luma_step, 1, false, spread_.data()), width, out);
  const Factors m = factors_of(view_);
  std::uint8_t *const u = spread_.data(), *const v = u + n, *const padded = v + n;
  if (terms_held_ != y / yuv_.down) {
    terms_held_ = y / yuv_.down;
    const std::size_t row = terms_held_ * yuv_.chroma_bytes;
    const auto fill = [&](const std::uint8_t* from, std::uint8_t* to) {
      const std::uint8_t* const made = samples(from + row, yuv_.chroma_step, yuv_.across, true, to);
      if (made != to) std::copy(made, made + width, to);  // nothing beyond the frame is read
    };
    fill(yuv_.u, u);
    fill(yuv_.v, v);
    lanes_.chroma(u, v, n, m, terms_.data());
  }
  luma = samples(luma, yuv_.luma_step, 1, false, padded);
  if (luma != padded && n != width) luma = std::copy(luma, luma + width, padded) - width;
  lanes_.colour(luma, terms_.data(), n, m, out);
}

}  // namespace mmedge
