// What a thread of a GPU computes, computed here: the bits of the CPU's kernel for every format, colour, turn
// and map.
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "cuda/picture_table.hpp"

namespace {

using namespace mmedge;

std::mt19937 generator(11);

std::size_t random(std::size_t low, std::size_t high) { return low + generator() % (high - low + 1); }

Axis random_axis(std::size_t camera, std::size_t out) {
  Axis axis{};
  axis.camera = camera;
  axis.block = random(0, 1) == 0 ? 1 : random(1, std::min<std::size_t>(camera, 20));
  const std::size_t blocks = camera / axis.block;
  axis.count = random(1, blocks);
  axis.first = random(0, blocks - axis.count);
  axis.out = out;
  axis.length = random(1, out);
  axis.start = random(0, out - axis.length);
  axis.step = static_cast<double>(random(1, 300)) / 100.0;
  axis.shift = static_cast<double>(random(0, 300)) / 100.0 - 1.5;
  return axis;
}

ImageSpec random_spec() {
  ImageSpec spec{1, 1, static_cast<Color>(random(0, 2)), random(1, 20), random(1, 30), {}, {}};
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    spec.mean.push_back(0.4f + 0.1f * static_cast<float>(c));
    spec.std.push_back(0.2f + 0.03f * static_cast<float>(c));
  }
  return spec;
}

void same_bits() {
  const ImageSpec spec = random_spec();
  ImageKernel kernel(spec, Instructions::scalar);
  std::size_t height = 2 * random(1, 40), width = 2 * random(1, 40);
  const auto format = static_cast<PixelFormat>(random(0, static_cast<std::size_t>(kLastFormat)));
  if (format == PixelFormat::bgr24 || format == PixelFormat::rgb24 || format == PixelFormat::gray8)
    height -= random(0, 1), width -= random(0, 1);
  ImageView view{nullptr, format, width, height, random(0, 1) == 0, static_cast<Matrix>(random(0, 4))};
  const bool swap = random(0, 1) == 1;
  const ImagePlan plan(random_axis(swap ? width : height, spec.height),
                       random_axis(swap ? height : width, spec.width), swap, random(0, 1) == 1,
                       random(0, 1) == 1);
  std::vector<std::uint8_t> frame(bytes_of(view.format, view.width, view.height));
  for (auto& byte : frame) byte = static_cast<std::uint8_t>(random(0, 255));
  view.data = frame.data();

  const std::size_t numbers = spec.channels() * spec.height * spec.width;
  std::vector<float> want(numbers, -1.0f), got(numbers, 0.0f);
  kernel.tensor(view, plan, want.data());
  const cuda::PictureTable table(kernel, view, plan);
  for (std::int32_t c = 0; c < table.picture.channels; ++c)
    for (std::int32_t y = 0; y < table.picture.rows; ++y)
      for (std::int32_t x = 0; x < table.picture.columns; ++x)
        cuda::write_number(table.picture, frame.data(), table.rows.data(), table.columns.data(), y, x, c,
                           got.data());
  CHECK(std::memcmp(want.data(), got.data(), numbers * sizeof(float)) == 0);
}

void refusals() {
  const ImageKernel kernel(ImageSpec{1, 1, Color::rgb, 4, 4, {0, 0, 0}, {1, 1, 1}}, Instructions::scalar);
  const Axis axis{6, 1, 0, 6, 1.5, 0.0, 0, 4, 4}, other{6, 1, 0, 6, 1.2, 0.0, 0, 5, 5};
  const auto table = [&](std::size_t side, PixelFormat format, const Axis& along) {
    return refuses([&] {
      cuda::PictureTable(kernel, {nullptr, format, side, side, true},
                         ImagePlan(along, along, false, false, false));
    });
  };
  CHECK(!table(6, PixelFormat::nv12, axis) && table(8, PixelFormat::nv12, axis));
  CHECK(table(6, PixelFormat::bgr24, other) && table(5, PixelFormat::nv12, axis));
}

}  // namespace

int main() {
  for (int i = 0; i < 4000; ++i) same_bits();
  refusals();
}
