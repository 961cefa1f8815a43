#include "image_plan.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace mmedge {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 20;
constexpr std::size_t kLargestBlock = 128;  // sums of its rows fit 16 bits, its sum a float

void check(const Axis& axis) {
  const auto require = [](bool fine, const char* message) {
    if (!fine) throw std::invalid_argument(message);
  };
  require(axis.camera >= 1 && axis.camera <= kLargest, "the camera's size is out of range");
  require(axis.out >= 1 && axis.out <= kLargest, "the output size is out of range");
  require(axis.block >= 1 && axis.block <= kLargestBlock, "blocks have 1 to 128 pixels");
  const std::size_t blocks = axis.camera / axis.block;
  require(axis.count >= 1 && axis.count <= blocks && axis.first <= blocks - axis.count,
          "the window leaves the camera's picture");
  require(axis.length >= 1 && axis.length <= axis.out && axis.start <= axis.out - axis.length,
          "the target box leaves the output");
  require(std::isfinite(axis.step) && axis.step > 0.0 && std::isfinite(axis.shift),
          "step must be positive and shift finite");
  const auto most = static_cast<double>(kLargest);
  require(axis.cell == 0.0 || (axis.cell >= 1.0 && axis.cell <= most && std::fabs(axis.cell_first) <= most),
          "cells have at least one pixel, and begin near the output");
}

StoredAxis stored(const Axis& axis, bool flip) {
  StoredAxis result{};
  result.camera = axis.camera;
  result.block = axis.block;
  result.blocks = axis.camera / axis.block;
  // What is left over at the end that is shown last is not used.
  result.origin = flip ? axis.camera - result.blocks * axis.block : 0;
  result.first = flip ? result.blocks - axis.first - axis.count : axis.first;
  result.step = axis.step;
  result.taps.plan(axis, flip);
  return result;
}

bool one_to_one(const Axis& axis) {
  return axis.block == 1 && axis.first == 0 && axis.count == axis.camera && axis.step == 1.0 &&
         axis.shift == 0.0 && axis.start == 0 && axis.length == axis.camera && axis.out == axis.camera;
}

}  // namespace

void Taps::plan(const Axis& axis, bool flip) {
  left.resize(axis.length);
  right.resize(axis.length);
  weight.resize(axis.length);
  const auto last = static_cast<double>(axis.count - 1);
  for (std::size_t k = 0; k < axis.length; ++k) {
    const std::size_t i = flip ? axis.length - 1 - k : k;
    double place = static_cast<double>(i) + 0.5;
    if (axis.cell > 0.0)
      place = (std::floor((place - axis.cell_first) / axis.cell) + 0.5) * axis.cell + axis.cell_first;
    const double centre = place * axis.step + axis.shift - 0.5;
    const double shown = std::clamp(centre, 0.0, last);
    const double inside = flip ? last - shown : shown;
    left[k] = static_cast<std::uint32_t>(inside);
    right[k] = std::min(left[k] + 1, static_cast<std::uint32_t>(axis.count - 1));
    weight[k] = static_cast<float>(inside - static_cast<double>(left[k]));
  }
}

ImagePlan::ImagePlan(const Axis& shown_rows_, const Axis& shown_columns_, bool swap, bool flip_rows,
                     bool flip_columns)
    : shown_rows(shown_rows_), shown_columns(shown_columns_) {
  static std::atomic<std::uint64_t> plans{0};
  check(shown_rows);
  check(shown_columns);
  id = ++plans;
  StoredAxis vertical = stored(shown_rows, flip_rows), horizontal = stored(shown_columns, flip_columns);
  const auto width = static_cast<std::ptrdiff_t>(shown_columns.out);
  const auto begin = [](const Axis& axis, bool flip) {
    return static_cast<std::ptrdiff_t>(axis.start + (flip ? axis.length - 1 : 0));
  };
  base = begin(shown_rows, flip_rows) * width + begin(shown_columns, flip_columns);
  const std::ptrdiff_t down = flip_rows ? -width : width, right = flip_columns ? -1 : 1;
  row_step = swap ? right : down;
  column_step = swap ? down : right;
  rows = std::move(swap ? horizontal : vertical);
  columns = std::move(swap ? vertical : horizontal);
  if (column_step == -1) {  // columns may as well be taken from the last to the first
    Taps& taps = columns.taps;
    std::reverse(taps.left.begin(), taps.left.end());
    std::reverse(taps.right.begin(), taps.right.end());
    std::reverse(taps.weight.begin(), taps.weight.end());
    base -= static_cast<std::ptrdiff_t>(columns.length()) - 1;
    column_step = 1;
  }
  whole = shown_rows.length == shown_rows.out && shown_columns.length == shown_columns.out;
  copy = !swap && !flip_rows && !flip_columns && one_to_one(shown_rows) && one_to_one(shown_columns);
}

}  // namespace mmedge
