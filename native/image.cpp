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

// Values in stored order to where they are shown.
template <typename T>
void scatter(const T* __restrict values, std::size_t n, std::ptrdiff_t step, T* out) {
  for (std::size_t i = 0; i < n; ++i) out[static_cast<std::ptrdiff_t>(i) * step] = values[i];
}

template <std::size_t kBlock>
void sum_blocks(const std::uint16_t* __restrict sums, std::size_t width, std::size_t block,
                float* __restrict out) {
  const std::size_t side = kBlock != 0 ? kBlock : block;
  for (std::size_t x = 0; x < width; ++x) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < side; ++i) sum += sums[x * side + i];
    out[x] = static_cast<float>(static_cast<std::int32_t>(sum));
  }
}

void sum_blocks(const std::uint16_t* sums, std::size_t width, std::size_t block, float* out) {
  switch (block) {
    case 2:
      return sum_blocks<2>(sums, width, block, out);
    case 4:
      return sum_blocks<4>(sums, width, block, out);
    default:
      return sum_blocks<0>(sums, width, block, out);
  }
}

// The same of interleaved pixels, to one plane for each byte of a pixel; reads one value beyond the last
// pixel.
template <std::size_t kBlock>
void sum_pixels(const std::uint16_t* __restrict sums, std::size_t width, std::size_t block,
                float* __restrict first, float* __restrict second, float* __restrict third) {
  using Values = std::uint16_t __attribute__((vector_size(8)));
  using Sums = std::int32_t __attribute__((vector_size(16)));
  const std::size_t side = kBlock != 0 ? kBlock : block;
  for (std::size_t x = 0; x < width; ++x) {
    Sums sum{};
    for (std::size_t i = 0; i < side; ++i) {
      Values values;
      std::memcpy(&values, sums + 3 * (x * side + i), sizeof values);
      sum += __builtin_convertvector(values, Sums);
    }
    first[x] = static_cast<float>(sum[0]);
    second[x] = static_cast<float>(sum[1]);
    third[x] = static_cast<float>(sum[2]);
  }
}

void sum_pixels(const std::uint16_t* sums, std::size_t width, std::size_t block,
                const std::array<float*, 3>& out) {
  switch (block) {
    case 2:
      return sum_pixels<2>(sums, width, block, out[0], out[1], out[2]);
    case 3:
      return sum_pixels<3>(sums, width, block, out[0], out[1], out[2]);
    case 4:
      return sum_pixels<4>(sums, width, block, out[0], out[1], out[2]);
    default:
      return sum_pixels<0>(sums, width, block, out[0], out[1], out[2]);
  }
}

}  // namespace

ImageKernel::ImageKernel(const ImageSpec& spec) : spec_(spec) {
  const auto sane = [](std::size_t n) { return n >= 1 && n <= kLargest; };
  require(sane(spec.frame_height) && sane(spec.frame_width), "the frame size is out of range");
  require(sane(spec.height) && sane(spec.width), "the output size is out of range");
  require(spec.mean.size() == spec.channels() && spec.std.size() == spec.channels(),
          "mean and std need one value per channel");
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    require(std::isfinite(spec.mean[c]) && std::isfinite(spec.std[c]) && spec.std[c] > 0.0f,
            "mean must be finite and std positive");
    bias_[c] = static_cast<float>(-static_cast<double>(spec.mean[c]) / static_cast<double>(spec.std[c]));
    margin_[c] = static_cast<std::uint8_t>(std::clamp(spec.mean[c], 0.0f, 1.0f) * 255.0f + 0.5f);
  }
}

void ImageKernel::bind(const ImageView& view, const ImagePlan& plan, std::size_t height, std::size_t width) {
  require(plan.rows.camera == view.height && plan.columns.camera == view.width,
          "the plan is of another picture");
  require(plan.shown_rows.out == height && plan.shown_columns.out == width, "the plan is of another output");
  rows_.bind(view, spec_.color);
  const auto grow = [](auto& buffer, std::size_t size) {
    if (buffer.size() < size) buffer.resize(size);
  };
  grow(blended_, 3 * view.width + 1);  // the last pixel's vector reaches one further
  grow(line_, 3 * plan.columns.length() + 1);
  grow(rounded_, 3 * plan.columns.length());
  if (plan.blocked()) {
    grow(sums_, 3 * view.width + 1);  // as above
    for (auto& row : block_) grow(row, 3 * plan.columns.blocks);
  }
  block_held_ = {kNone, kNone};
  const auto block = static_cast<double>(plan.rows.block * plan.columns.block);
  for (std::size_t c = 0; c < spec_.channels(); ++c)
    scale_[c] = static_cast<float>(1.0 / (255.0 * block * static_cast<double>(spec_.std[c])));
}

// The block sums of one row of blocks, planar: channel c starts at c * plan.columns.blocks.
const float* ImageKernel::block_row(const ImagePlan& plan, std::size_t y) {
  float* const out = block_[y % 2].data();
  if (block_held_[y % 2] == y) return out;
  block_held_[y % 2] = y;
  const RowLayout& layout = rows_.layout();
  std::uint16_t* __restrict const sums = sums_.data();
  for (std::size_t i = 0; i < plan.rows.block; ++i) {
    const std::uint8_t* __restrict const row = rows_.row(plan.rows.origin + y * plan.rows.block + i);
    if (i == 0) {
      for (std::size_t x = 0; x < layout.bytes; ++x) sums[x] = row[x];
    } else {
      for (std::size_t x = 0; x < layout.bytes; ++x) sums[x] = static_cast<std::uint16_t>(sums[x] + row[x]);
    }
  }
  const std::size_t width = plan.columns.blocks;
  const std::uint16_t* const first = sums + plan.columns.origin * layout.stride;
  if (layout.stride == 3) {
    std::array<float*, 3> planes{};
    for (std::size_t c = 0; c < 3; ++c) planes[layout.offset[c]] = out + c * width;
    sum_pixels(first, width, plan.columns.block, planes);
    return out;
  }
  for (std::size_t c = 0; c < spec_.channels(); ++c)
    sum_blocks(first + layout.offset[c], width, plan.columns.block, out + c * width);
  return out;
}

ImageKernel::Blended ImageKernel::blend_row(const ImagePlan& plan, std::size_t y) {
  const Taps& taps = plan.rows.taps;
  const std::size_t above = plan.rows.first + taps.left[y], below = plan.rows.first + taps.right[y];
  if (plan.blocked()) {
    const std::size_t width = plan.columns.blocks;
    const float* const first = block_row(plan, above);
    blend(first, block_row(plan, below), taps.weight[y], spec_.channels() * width, blended_.data());
    return {1, {0, width, 2 * width}};
  }
  const RowLayout& layout = rows_.layout();
  const std::uint8_t* const first = rows_.row(above);
  blend(first, rows_.row(below), taps.weight[y], layout.bytes, blended_.data());
  return {layout.stride, layout.offset};
}

void ImageKernel::planar_columns(const ImagePlan& plan, const Blended& blended, std::size_t y, float* out) {
  const Taps& taps = plan.columns.taps;
  const std::size_t width = taps.left.size();
  const std::uint32_t* __restrict const left = taps.left.data();
  const std::uint32_t* __restrict const right = taps.right.data();
  const float* __restrict const weight = taps.weight.data();
  for (std::size_t c = 0; c < spec_.channels(); ++c) {
    const float* __restrict const row = blended_.data() + blended.offset[c] + plan.columns.first;
    float* const shown = out + c * spec_.height * spec_.width + plan.row_at(y);
    float* __restrict const to = plan.upright() ? shown : line_.data();
    const float scale = scale_[c], bias = bias_[c];
    for (std::size_t x = 0; x < width; ++x) {
      const float a = row[left[x]], b = row[right[x]];
      to[x] = (a + (b - a) * weight[x]) * scale + bias;
    }
    if (!plan.upright()) scatter(line_.data(), width, plan.column_step, shown);
  }
}

void ImageKernel::interleaved_columns(const ImagePlan& plan, const Blended& blended, std::size_t y,
                                      float* out) {
  const Taps& taps = plan.columns.taps;
  const std::size_t width = taps.left.size();
  const float* __restrict const row = blended_.data() + plan.columns.first * 3;
  Pixel scale{}, bias{};
  std::array<float*, 3> shown{}, to{};
  for (std::size_t c = 0; c < 3; ++c) {
    const std::size_t at = blended.offset[c];
    scale[at] = scale_[c];
    bias[at] = bias_[c];
    shown[at] = out + c * spec_.height * spec_.width + plan.row_at(y);
    to[at] = plan.upright() ? shown[at] : line_.data() + at * width;
  }
  float* __restrict const first = to[0];
  float* __restrict const second = to[1];
  float* __restrict const third = to[2];
  const std::uint32_t* __restrict const left = taps.left.data();
  const std::uint32_t* __restrict const right = taps.right.data();
  const float* __restrict const weight = taps.weight.data();
  for (std::size_t x = 0; x < width; ++x) {
    const Pixel a = load(row + 3 * left[x]), b = load(row + 3 * right[x]);
    const Pixel value = (a + (b - a) * weight[x]) * scale + bias;
    first[x] = value[0];
    second[x] = value[1];
    third[x] = value[2];
  }
  if (plan.upright()) return;
  for (std::size_t at = 0; at < 3; ++at) scatter(to[at], width, plan.column_step, shown[at]);
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
  bind(view, plan, spec_.height, spec_.width);
  clear_margin(plan, out);
  for (std::size_t y = 0; y < plan.rows.length(); ++y) {
    const Blended row = blend_row(plan, y);
    row.stride == 1 ? planar_columns(plan, row, y, out) : interleaved_columns(plan, row, y, out);
  }
}

void ImageKernel::raw(const ImageView& view, const ImagePlan& plan, std::uint8_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bind(view, plan, spec_.frame_height, spec_.frame_width);
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
    for (std::size_t x = 0; x < spec_.frame_width; ++x)
      for (std::size_t c = 0; c < channels; ++c)
        out[x * channels + c] = row[layout.offset[c] + x * layout.stride];
  }
}

void ImageKernel::fill_margin(const ImagePlan& plan, std::uint8_t* out) const {
  if (plan.whole) return;
  const std::size_t channels = spec_.channels();
  for (std::size_t i = 0, n = spec_.frame_height * spec_.frame_width; i < n; ++i)
    for (std::size_t c = 0; c < channels; ++c) out[i * channels + c] = margin_[c];
}

// float32 in the order of the numpy oracle, so that both round every pixel the same way.
void ImageKernel::raw_columns(const ImagePlan& plan, const Blended& blended, std::size_t y,
                              std::uint8_t* out) {
  const std::size_t channels = spec_.channels(), width = plan.columns.length();
  float* const line = line_.data();
  if (blended.stride == 3) {
    resize_row(blended_.data() + 3 * plan.columns.first, plan.columns.taps, blended.offset[0] == 2, line);
  } else {
    for (std::size_t c = 0; c < channels; ++c)
      resize_plane(blended_.data() + blended.offset[c] + plan.columns.first, plan.columns.taps, channels,
                   line + c);
  }
  if (plan.blocked()) {
    const auto share = static_cast<float>(1.0 / static_cast<double>(plan.rows.block * plan.columns.block));
    for (std::size_t i = 0; i < width * channels; ++i) line[i] *= share;
  }
  std::uint8_t* const shown = out + plan.row_at(y) * static_cast<std::ptrdiff_t>(channels);
  if (plan.upright()) return round_row(line, width * channels, shown);
  round_row(line, width * channels, rounded_.data());
  const std::ptrdiff_t step = plan.column_step * static_cast<std::ptrdiff_t>(channels);
  for (std::size_t x = 0; x < width; ++x)
    for (std::size_t c = 0; c < channels; ++c)
      shown[static_cast<std::ptrdiff_t>(x) * step + static_cast<std::ptrdiff_t>(c)] =
          rounded_[x * channels + c];
}

}  // namespace mmedge
