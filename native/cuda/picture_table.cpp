#include "cuda/picture_table.hpp"

#include <cmath>
#include <stdexcept>

namespace mmedge::cuda {
namespace {

bool interleaved(PixelFormat format) { return format == PixelFormat::bgr24 || format == PixelFormat::rgb24; }

std::vector<Tap> taps_of(const StoredAxis& axis) {
  std::vector<Tap> made(axis.length());
  for (std::size_t i = 0; i < made.size(); ++i)
    made[i] = {static_cast<std::int32_t>(axis.first + axis.taps.left[i]),
               static_cast<std::int32_t>(axis.first + axis.taps.right[i]),
               static_cast<std::int32_t>(std::lround(axis.taps.weight[i] * 32768.0f))};
  return made;
}

Pixels pixels_of(PixelFormat format, Color color) {
  if (interleaved(format)) return color == Color::gray ? Pixels::kMixed : Pixels::kColour;
  return color == Color::gray || format == PixelFormat::gray8 ? Pixels::kGray : Pixels::kYuv;
}

}  // namespace

PictureTable::PictureTable(const ImageKernel& kernel, const ImageView& view, const ImagePlan& plan) {
  const ImageSpec& spec = kernel.spec();
  PixelRows(Instructions::scalar).bind(view, spec.color);  // refuses what cannot be
  if (plan.rows.camera != view.height || plan.columns.camera != view.width)
    throw std::invalid_argument("the plan is of another picture");
  if (plan.shown_rows.out != spec.height || plan.shown_columns.out != spec.width)
    throw std::invalid_argument("the plan is of another output");
  if (bytes_of(view.format, view.width, view.height) > 0x7fffffff)
    throw std::invalid_argument("the picture is too large");
  picture = {};
  picture.pixels = pixels_of(view.format, spec.color);
  picture.expand = view.full_range ? 0 : 1;
  const auto whole = [](auto number) { return static_cast<std::int32_t>(number); };
  if (interleaved(view.format)) {
    picture.luma_bytes = whole(3 * view.width);
  } else {
    const YuvLayout layout = yuv_layout(view);
    picture.luma_bytes = whole(layout.luma_bytes), picture.chroma_bytes = whole(layout.chroma_bytes);
    picture.u = whole(layout.u - layout.luma), picture.v = whole(layout.v - layout.luma);
    picture.luma_step = whole(layout.luma_step), picture.chroma_step = whole(layout.chroma_step);
    picture.deep = layout.deep ? 1 : 0, picture.shift = layout.shift;
    picture.narrow = narrowing_of(layout.shift, view.full_range, false).factor;
    picture.luma_bias = narrowing_of(layout.shift, view.full_range, false).bias;
    picture.chroma_bias = narrowing_of(layout.shift, view.full_range, true).bias;
    picture.across = layout.across == 2 ? 1 : 0, picture.down = layout.down == 2 ? 1 : 0;
  }
  const Factors m = factors_of(view);
  picture.black = m.black, picture.luma = m.luma, picture.red_v = m.red_v;
  picture.green_u = m.green_u, picture.green_v = m.green_v, picture.blue_u = m.blue_u;
  // Of interleaved pixels the byte of each channel, of gray that of red, green and blue; else the colour it
  // is.
  const bool stored_bgr = view.format == PixelFormat::bgr24;
  const bool swap = spec.color == Color::gray ? stored_bgr : (spec.color == Color::bgr) != stored_bgr;
  for (std::int32_t c = 0; c < 3; ++c) picture.place[c] = swap ? 2 - c : c;
  picture.block_rows = whole(plan.rows.block), picture.block_columns = whole(plan.columns.block);
  picture.origin_row = whole(plan.rows.origin), picture.origin_column = whole(plan.columns.origin);
  picture.channels = whole(spec.channels()), picture.height = whole(spec.height);
  picture.width = whole(spec.width);
  picture.rows = whole(plan.rows.length()), picture.columns = whole(plan.columns.length());
  picture.base = whole(plan.base), picture.row_step = whole(plan.row_step);
  picture.column_step = whole(plan.column_step);
  picture.share = static_cast<float>(128.0 / static_cast<double>(plan.rows.block * plan.columns.block));
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    picture.scale[c] = plan.blocked() ? kernel.scale()[c] / 128.0f : kernel.scale()[c];
    picture.bias[c] = kernel.bias()[c];
  }
  rows = taps_of(plan.rows), columns = taps_of(plan.columns);
}

}  // namespace mmedge::cuda
