#include "image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mmedge {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 20;

void require(bool fine, const char* message) {
  if (!fine) throw std::invalid_argument(message);
}

constexpr std::size_t kTurned = 8;  // rows that become columns at once

}  // namespace

ImageKernel::ImageKernel(const ImageSpec& spec, Instructions instructions)
    : spec_(spec),
      taps_(instructions),
      rows_(instructions),
      blocks_(image_lanes(instructions)),
      loops_(image_lanes(instructions).raw) {
  const auto sane = [](std::size_t n) { return n >= 1 && n <= kLargest; };
  require(sane(spec.frame_height) && sane(spec.frame_width), "the frame size is out of range");
  require(sane(spec.height) && sane(spec.width), "the output size is out of range");
  require(spec.mean.size() == spec.channels() && spec.std.size() == spec.channels(),
          "mean and std need one value per channel");
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    require(std::isfinite(spec.mean[c]) && std::isfinite(spec.std[c]) && spec.std[c] > 0.0f,
            "mean must be finite and std positive");
    // Weights are negative, with 15 fractional bits.
    scale_[c] = static_cast<float>(-1.0 / (255.0 * 32768.0 * static_cast<double>(spec.std[c])));
    bias_[c] = static_cast<float>(-static_cast<double>(spec.mean[c]) / static_cast<double>(spec.std[c]));
    margin_[c] = static_cast<std::uint8_t>(std::clamp(spec.mean[c], 0.0f, 1.0f) * 255.0f + 0.5f);
  }
}

void ImageKernel::check(const ImageView& view, const ImagePlan& plan, std::size_t height,
                        std::size_t width) const {
  require(plan.rows.camera == view.height && plan.columns.camera == view.width,
          "the plan is of another picture");
  require(plan.shown_rows.out == height && plan.shown_columns.out == width, "the plan is of another output");
}

void ImageKernel::bind(const ImageView& view, const ImagePlan& plan) {
  check(view, plan, spec_.frame_height, spec_.frame_width);
  rows_.bind(view, spec_.color);
  const auto grow = [](auto& buffer, std::size_t size) {
    if (buffer.size() < size) buffer.resize(size);
  };
  grow(blended_,
       std::max(rows_.layout().bytes, 3 * view.width) + 1);  // the last pixel's vector reaches one further
  grow(line_, 3 * plan.columns.length() + 1);
  grow(rounded_, 3 * plan.columns.length());
  if (plan.blocked()) blocks_.bind(plan, rows_);
}

ImageKernel::Blended ImageKernel::blend_row(const ImagePlan& plan, std::size_t y) {
  const Taps& taps = plan.rows.taps;
  const std::size_t above = plan.rows.first + taps.left[y], below = plan.rows.first + taps.right[y];
  if (plan.blocked()) {
    const std::size_t width = plan.columns.blocks;
    const float* const first = blocks_.row(above);
    loops_.mix_sums(first, blocks_.row(below), taps.weight[y], spec_.channels() * width, blended_.data());
    if (rows_.layout().stride == 3) return {3, rows_.layout().offset};
    const bool gray = rows_.layout().offset[1] == 0;  // shown in colour
    return {1, gray ? std::array<std::size_t, 3>{} : std::array<std::size_t, 3>{0, width, 2 * width}};
  }
  const RowLayout& layout = rows_.layout();
  const std::uint8_t* const first = rows_.row(above);
  loops_.mix_bytes(first, rows_.row(below), taps.weight[y], layout.bytes, blended_.data());
  return {layout.stride, layout.offset};
}

void ImageKernel::clear_margin(const ImagePlan& plan, float* out) const {
  if (plan.whole) return;
  const Axis &rows = plan.shown_rows, &columns = plan.shown_columns;
  for (std::size_t c = 0; c < spec_.channels(); ++c) {
    for (std::size_t y = 0; y < spec_.height; ++y) {
      float* const row = out + (c * spec_.height + y) * spec_.width;
      const bool inside = y >= rows.start && y < rows.start + rows.length;
      std::fill(row, row + (inside ? columns.start : spec_.width), 0.0f);
      if (inside) std::fill(row + columns.start + columns.length, row + spec_.width, 0.0f);
    }
  }
}

void ImageKernel::tensor(const ImageView& view, const ImagePlan& plan, float* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check(view, plan, spec_.height, spec_.width);
  taps_.bind(view, spec_.color, plan);
  clear_margin(plan, out);
  if (!plan.upright()) return turned_rows(plan, out);
  for (std::size_t y = 0; y < plan.rows.length(); ++y)
    tensor_row(plan, y, out + plan.row_at(y), spec_.height * spec_.width);
}

void ImageKernel::turned_rows(const ImagePlan& plan, float* out) {
  const std::size_t width = plan.columns.length(), distance = kTurned * width, rows = plan.rows.length();
  if (line_.size() < 3 * distance) line_.resize(3 * distance);
  const bool down = plan.row_step > 0;  // the output's columns come from the left to the right
  for (std::size_t y = 0; y < rows; y += kTurned) {
    const std::size_t n = std::min(kTurned, rows - y);
    for (std::size_t k = 0; k < n; ++k)
      tensor_row(plan, y + k, line_.data() + (down ? k : n - 1 - k) * width, distance);
    float* const to = out + plan.row_at(down ? y : y + n - 1);
    for (std::size_t c = 0; c < spec_.channels(); ++c)
      loops_.turn(line_.data() + c * distance, n, width, plan.column_step,
                  to + c * spec_.height * spec_.width);
  }
}

void ImageKernel::tensor_row(const ImagePlan& plan, std::size_t y, float* out, std::size_t distance) {
  const Taps& rows = plan.rows.taps;
  const ColumnTaps& columns = taps_.columns();
  const auto between = std::lround(rows.weight[y] * 32768.0f);
  const std::size_t below = plan.rows.first + rows.right[y];
  const std::size_t above = between < 32768 ? plan.rows.first + rows.left[y] : below;  // one has no 16 bits
  Blend blend{columns.weights.data(),
              columns.start.data(),
              columns.start.size(),
              spec_.channels(),
              static_cast<std::int16_t>(between % 32768),
              {},
              {},
              {},
              {}};
  for (std::size_t c = 0; c < spec_.channels(); ++c) {
    blend.out[c] = out + c * distance;
    blend.taps[c] = taps_.channel(c), blend.scale[c] = plan.blocked() ? scale_[c] / 128.0f : scale_[c],
    blend.bias[c] = bias_[c];
  }
  taps_.blend(above, below, blend);
}

void ImageKernel::raw(const ImageView& view, const ImagePlan& plan, std::uint8_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bind(view, plan);
  if (plan.copy) return copy(out);
  fill_margin(plan, out);
  for (std::size_t y = 0; y < plan.rows.length(); ++y) raw_columns(plan, blend_row(plan, y), y, out);
}

void ImageKernel::copy(std::uint8_t* out) {
  const RowLayout& layout = rows_.layout();
  const std::size_t channels = spec_.channels();
  const bool same = layout.stride == channels && layout.offset[0] == 0;
  for (std::size_t y = 0; y < spec_.frame_height; ++y, out += spec_.frame_width * channels) {
    const std::uint8_t* const row = rows_.row(y);
    if (same) {
      std::memcpy(out, row, layout.bytes);
      continue;
    }
    if (channels == 3)
      loops_.weave(row, layout.offset.data(), layout.stride, spec_.frame_width, out);
    else
      std::copy(row, row + spec_.frame_width, out);
  }
}

void ImageKernel::fill_margin(const ImagePlan& plan, std::uint8_t* out) const {
  if (plan.whole) return;
  const std::size_t channels = spec_.channels();
  for (std::size_t i = 0, n = spec_.frame_height * spec_.frame_width; i < n; ++i)
    for (std::size_t c = 0; c < channels; ++c) out[i * channels + c] = margin_[c];
}

void ImageKernel::raw_columns(const ImagePlan& plan, const Blended& blended, std::size_t y,
                              std::uint8_t* out) {
  const std::size_t channels = spec_.channels(), width = plan.columns.length();
  const Taps& columns = plan.columns.taps;
  const FloatTaps taps{columns.left.data(), columns.right.data(), columns.weight.data(), width};
  float* const line = line_.data();
  if (blended.stride == 3) {
    loops_.resize_pixels(blended_.data() + 3 * plan.columns.first, taps, blended.offset[0] == 2, line);
  } else {
    for (std::size_t c = 0; c < channels; ++c)
      loops_.resize_plane(blended_.data() + blended.offset[c] + plan.columns.first, taps, channels, line + c);
  }
  const auto share = static_cast<float>(1.0 / static_cast<double>(plan.rows.block * plan.columns.block));
  std::uint8_t* const shown = out + plan.row_at(y) * static_cast<std::ptrdiff_t>(channels);
  if (plan.upright()) return loops_.round_row(line, share, width * channels, shown);
  loops_.round_row(line, share, width * channels, rounded_.data());
  const std::ptrdiff_t step = plan.column_step * static_cast<std::ptrdiff_t>(channels);
  for (std::size_t x = 0; x < width; ++x)
    for (std::size_t c = 0; c < channels; ++c)
      shown[static_cast<std::ptrdiff_t>(x) * step + static_cast<std::ptrdiff_t>(c)] =
          rounded_[x * channels + c];
}

}  // namespace mmedge
