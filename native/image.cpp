#include "image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mmedge {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
constexpr std::size_t kLargest = std::size_t{1} << 20;

void require(bool fine, const char* message) {
  if (!fine) throw std::invalid_argument(message);
}

// Three interleaved channels and one neighbour: a pixel is one vector.
using Pixel = float __attribute__((vector_size(16)));

Pixel load(const float* from) {
  Pixel pixel;
  std::memcpy(&pixel, from, sizeof pixel);
  return pixel;
}

template <typename T>
void blend(const T* __restrict above, const T* __restrict below, float weight, std::size_t n,
           float* __restrict out) {
  for (std::size_t i = 0; i < n; ++i) {
    const auto a = static_cast<float>(above[i]), b = static_cast<float>(below[i]);
    out[i] = a + (b - a) * weight;
  }
}

// Writes one float beyond the last pixel.
void resize_row(const float* __restrict row, const Taps& taps, bool swap, float* __restrict out) {
  const std::uint32_t* const left = taps.left.data();
  const std::uint32_t* const right = taps.right.data();
  const float* const weight = taps.weight.data();
  for (std::size_t x = 0, width = taps.left.size(); x < width; ++x) {
    const Pixel a = load(row + 3 * left[x]), b = load(row + 3 * right[x]);
    const Pixel value = a + (b - a) * weight[x];
    const Pixel ordered = swap ? Pixel{value[2], value[1], value[0], value[3]} : value;
    std::memcpy(out + 3 * x, &ordered, sizeof ordered);
  }
}

void resize_plane(const float* __restrict plane, const Taps& taps, std::size_t stride,
                  float* __restrict out) {
  for (std::size_t x = 0, width = taps.left.size(); x < width; ++x) {
    const float a = plane[taps.left[x]], b = plane[taps.right[x]];
    out[x * stride] = a + (b - a) * taps.weight[x];
  }
}

void round_row(const float* __restrict values, std::size_t n, std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::uint8_t>(static_cast<int>(values[i] + 0.5f));
}

template <std::size_t kStride, std::size_t kReduce>
void sum_blocks(const std::uint16_t* __restrict sums, std::size_t width, std::size_t reduce,
                float* __restrict out) {
  const std::size_t side = kReduce != 0 ? kReduce : reduce;
  for (std::size_t x = 0; x < width; ++x) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < side; ++i) sum += sums[(x * side + i) * kStride];
    out[x] = static_cast<float>(static_cast<std::int32_t>(sum));
  }
}

template <std::size_t kStride>
void sum_blocks(const std::uint16_t* sums, std::size_t width, std::size_t reduce, float* out) {
  switch (reduce) {
    case 2:
      return sum_blocks<kStride, 2>(sums, width, reduce, out);
    case 4:
      return sum_blocks<kStride, 4>(sums, width, reduce, out);
    default:
      return sum_blocks<kStride, 0>(sums, width, reduce, out);
  }
}

}  // namespace

void Taps::plan(std::size_t size, std::size_t source) {
  left.resize(size);
  right.resize(size);
  weight.resize(size);
  const double ratio = static_cast<double>(source) / static_cast<double>(size);
  for (std::size_t i = 0; i < size; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * ratio - 0.5;
    const double inside = std::clamp(centre, 0.0, static_cast<double>(source - 1));
    left[i] = static_cast<std::uint32_t>(inside);
    right[i] = std::min(left[i] + 1, static_cast<std::uint32_t>(source - 1));
    weight[i] = static_cast<float>(inside - static_cast<double>(left[i]));
  }
}

ImageKernel::ImageKernel(const ImageSpec& spec) : spec_(spec) {
  const auto sane = [](std::size_t n) { return n >= 1 && n <= kLargest; };
  const auto holds = [](const Box& box, std::size_t height, std::size_t width) {
    return box.height >= 1 && box.width >= 1 && box.height <= height && box.width <= width &&
           box.top <= height - box.height && box.left <= width - box.width;
  };
  require(sane(spec.frame_height) && sane(spec.frame_width), "the frame size is out of range");
  require(sane(spec.height) && sane(spec.width), "the output size is out of range");
  require(spec.reduce >= 1 && spec.reduce <= 32, "reduce must be 1 to 32");
  require(holds(spec.crop, spec.frame_height / spec.reduce, spec.frame_width / spec.reduce),
          "the crop box leaves the reduced frame");
  require(holds(spec.target, spec.height, spec.width), "the target box leaves the output");
  require(spec.mean.size() == spec.channels() && spec.std.size() == spec.channels(),
          "mean and std need one value per channel");
  const auto block = static_cast<double>(spec.reduce * spec.reduce);
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    require(std::isfinite(spec.mean[c]) && std::isfinite(spec.std[c]) && spec.std[c] > 0.0f,
            "mean must be finite and std positive");
    scale_.push_back(static_cast<float>(1.0 / (255.0 * block * static_cast<double>(spec.std[c]))));
    bias_.push_back(
        static_cast<float>(-static_cast<double>(spec.mean[c]) / static_cast<double>(spec.std[c])));
  }
  rows_plan_.plan(spec.target.height, spec.crop.height);
  columns_plan_.plan(spec.target.width, spec.crop.width);
  blended_.resize(3 * spec.frame_width + 1);  // the last pixel's vector reaches one further
  if (spec.reduce > 1) {
    sums_.resize(3 * spec.frame_width);
    for (auto& row : reduced_) row.resize(3 * (spec.frame_width / spec.reduce));
  }
}

// The block sums of one reduced row, planar: channel c starts at c * (frame width / reduce).
const float* ImageKernel::reduced_row(std::size_t y) {
  float* const out = reduced_[y % 2].data();
  if (reduced_held_[y % 2] == y) return out;
  reduced_held_[y % 2] = y;
  const RowLayout& layout = rows_.layout();
  std::uint16_t* __restrict const sums = sums_.data();
  for (std::size_t i = 0; i < spec_.reduce; ++i) {
    const std::uint8_t* __restrict const row = rows_.row(y * spec_.reduce + i);
    if (i == 0) {
      for (std::size_t x = 0; x < layout.bytes; ++x) sums[x] = row[x];
    } else {
      for (std::size_t x = 0; x < layout.bytes; ++x) sums[x] = static_cast<std::uint16_t>(sums[x] + row[x]);
    }
  }
  const std::size_t width = spec_.frame_width / spec_.reduce;
  for (std::size_t c = 0; c < spec_.channels(); ++c) {
    const std::uint16_t* const first = sums + layout.offset[c];
    if (layout.stride == 1)
      sum_blocks<1>(first, width, spec_.reduce, out + c * width);
    else
      sum_blocks<3>(first, width, spec_.reduce, out + c * width);
  }
  return out;
}

void ImageKernel::planar_columns(std::size_t y, const std::array<std::size_t, 3>& offset, float* out) const {
  for (std::size_t c = 0; c < spec_.channels(); ++c) {
    const float* __restrict const row = blended_.data() + offset[c] + spec_.crop.left;
    float* __restrict const to = target_row(c, y, out);
    const float scale = scale_[c], bias = bias_[c];
    for (std::size_t x = 0; x < spec_.target.width; ++x) {
      const float a = row[columns_plan_.left[x]], b = row[columns_plan_.right[x]];
      to[x] = (a + (b - a) * columns_plan_.weight[x]) * scale + bias;
    }
  }
}

void ImageKernel::interleaved_columns(std::size_t y, const std::array<std::size_t, 3>& offset,
                                      float* out) const {
  const float* __restrict const row = blended_.data() + spec_.crop.left * 3;
  Pixel scale{}, bias{};
  std::array<float*, 3> to{};
  for (std::size_t c = 0; c < 3; ++c) {
    scale[offset[c]] = scale_[c];
    bias[offset[c]] = bias_[c];
    to[offset[c]] = target_row(c, y, out);
  }
  float* __restrict const first = to[0];
  float* __restrict const second = to[1];
  float* __restrict const third = to[2];
  for (std::size_t x = 0; x < spec_.target.width; ++x) {
    const Pixel a = load(row + 3 * columns_plan_.left[x]), b = load(row + 3 * columns_plan_.right[x]);
    const Pixel value = (a + (b - a) * columns_plan_.weight[x]) * scale + bias;
    first[x] = value[0];
    second[x] = value[1];
    third[x] = value[2];
  }
}

float* ImageKernel::target_row(std::size_t channel, std::size_t y, float* out) const {
  return out + (channel * spec_.height + spec_.target.top + y) * spec_.width + spec_.target.left;
}

void ImageKernel::clear_margin(float* out) const {
  const Box& box = spec_.target;
  if (box.height == spec_.height && box.width == spec_.width) return;
  for (std::size_t c = 0; c < spec_.channels(); ++c) {
    for (std::size_t y = 0; y < spec_.height; ++y) {
      float* const row = out + (c * spec_.height + y) * spec_.width;
      const bool inside = y >= box.top && y < box.top + box.height;
      std::fill(row, row + (inside ? box.left : spec_.width), 0.0f);
      if (inside) std::fill(row + box.left + box.width, row + spec_.width, 0.0f);
    }
  }
}

void ImageKernel::tensor(const ImageView& view, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  rows_.bind(view, spec_.color);
  if (view.height != spec_.frame_height || view.width != spec_.frame_width) {
    frame_.resize(spec_.frame_height * spec_.frame_width * spec_.channels());
    resize(view, frame_.data());
    const PixelFormat format = spec_.color == Color::gray  ? PixelFormat::gray8
                               : spec_.color == Color::rgb ? PixelFormat::rgb24
                                                           : PixelFormat::bgr24;
    rows_.bind({frame_.data(), format, spec_.frame_width, spec_.frame_height, true}, spec_.color);
  }
  clear_margin(out);
  reduced_held_ = {kNone, kNone};
  const RowLayout& layout = rows_.layout();
  const std::size_t reduced_width = spec_.frame_width / spec_.reduce;
  for (std::size_t y = 0; y < spec_.target.height; ++y) {
    const std::size_t above = spec_.crop.top + rows_plan_.left[y],
                      below = spec_.crop.top + rows_plan_.right[y];
    const float weight = rows_plan_.weight[y];
    if (spec_.reduce > 1) {
      const float* const first = reduced_row(above);
      blend(first, reduced_row(below), weight, spec_.channels() * reduced_width, blended_.data());
      planar_columns(y, {0, reduced_width, 2 * reduced_width}, out);
      continue;
    }
    const std::uint8_t* const first = rows_.row(above);
    blend(first, rows_.row(below), weight, layout.bytes, blended_.data());
    layout.stride == 1 ? planar_columns(y, layout.offset, out) : interleaved_columns(y, layout.offset, out);
  }
}

void ImageKernel::raw(const ImageView& view, std::uint8_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  rows_.bind(view, spec_.color);
  view.height == spec_.frame_height&& view.width == spec_.frame_width ? convert(out) : resize(view, out);
}

void ImageKernel::convert(std::uint8_t* out) {
  const RowLayout& layout = rows_.layout();
  const std::size_t channels = spec_.channels();
  const bool copy = layout.stride == channels && layout.offset[0] == 0;
  for (std::size_t y = 0; y < spec_.frame_height; ++y, out += spec_.frame_width * channels) {
    const std::uint8_t* const row = rows_.row(y);
    if (copy) {
      std::memcpy(out, row, layout.bytes);
      continue;
    }
    for (std::size_t x = 0; x < spec_.frame_width; ++x)
      for (std::size_t c = 0; c < channels; ++c)
        out[x * channels + c] = row[layout.offset[c] + x * layout.stride];
  }
}

// float32 in the order of the numpy oracle, so that both round every pixel the same way.
void ImageKernel::resize(const ImageView& view, std::uint8_t* out) {
  if (view.height != camera_height_ || view.width != camera_width_) {
    camera_rows_.plan(spec_.frame_height, view.height);
    camera_columns_.plan(spec_.frame_width, view.width);
    blended_.resize(std::max(blended_.size(), 3 * view.width + 1));
    line_.resize(3 * spec_.frame_width + 1);
    camera_height_ = view.height;
    camera_width_ = view.width;
  }
  const RowLayout& layout = rows_.layout();
  const std::size_t channels = spec_.channels();
  for (std::size_t y = 0; y < spec_.frame_height; ++y, out += spec_.frame_width * channels) {
    const std::uint8_t* const above = rows_.row(camera_rows_.left[y]);
    blend(above, rows_.row(camera_rows_.right[y]), camera_rows_.weight[y], layout.bytes, blended_.data());
    float* const line = line_.data();
    if (layout.stride == 3) {
      resize_row(blended_.data(), camera_columns_, layout.offset[0] == 2, line);
    } else {
      for (std::size_t c = 0; c < channels; ++c)
        resize_plane(blended_.data() + layout.offset[c], camera_columns_, channels, line + c);
    }
    round_row(line, spec_.frame_width * channels, out);
  }
}

}  // namespace mmedge
