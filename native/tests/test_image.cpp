#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "image.hpp"

namespace {

using namespace mmedge;

std::mt19937 generator(7);

std::size_t random(std::size_t low, std::size_t high) { return low + generator() % (high - low + 1); }

std::size_t bytes(PixelFormat format, std::size_t width, std::size_t height) {
  if (format == PixelFormat::gray8) return width * height;
  if (format == PixelFormat::bgr24 || format == PixelFormat::rgb24) return 3 * width * height;
  return width * height * 3 / 2;
}

// Buffers of exactly the right size on the heap, so that AddressSanitizer sees the first byte beyond.
template <typename T>
std::unique_ptr<T[]> exactly(std::size_t n) {
  return std::unique_ptr<T[]>(new T[n]);
}

ImageSpec random_spec() {
  ImageSpec spec{};
  spec.color = static_cast<Color>(random(0, 2));
  spec.reduce = random(1, 4);
  spec.frame_height = random(spec.reduce, 40);
  spec.frame_width = random(spec.reduce, 40);
  const std::size_t rows = spec.frame_height / spec.reduce, columns = spec.frame_width / spec.reduce;
  const auto box = [](std::size_t height, std::size_t width) {
    Box result{};
    result.height = random(1, height);
    result.width = random(1, width);
    result.top = random(0, height - result.height);
    result.left = random(0, width - result.width);
    return result;
  };
  spec.height = random(1, 30);
  spec.width = random(1, 30);
  spec.crop = box(rows, columns);
  spec.target = box(spec.height, spec.width);
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    spec.mean.push_back(0.4f + 0.1f * static_cast<float>(c));
    spec.std.push_back(0.2f);
  }
  return spec;
}

// The definition of the tensor, pixel by pixel, from the raw frame.
double naive(const ImageSpec& spec, const std::uint8_t* raw, std::size_t c, std::size_t y, std::size_t x) {
  const Box& target = spec.target;
  if (y < target.top || y >= target.top + target.height || x < target.left || x >= target.left + target.width)
    return 0.0;
  const auto centre = [](std::size_t at, std::size_t size, std::size_t source) {
    const double ratio = static_cast<double>(source) / static_cast<double>(size);
    return std::clamp((static_cast<double>(at) + 0.5) * ratio - 0.5, 0.0, static_cast<double>(source - 1));
  };
  const double v = centre(y - target.top, target.height, spec.crop.height);
  const double u = centre(x - target.left, target.width, spec.crop.width);
  const auto block = [&](double row, double column) {
    const std::size_t top =
        (spec.crop.top + std::min(static_cast<std::size_t>(row), spec.crop.height - 1)) * spec.reduce;
    const std::size_t left =
        (spec.crop.left + std::min(static_cast<std::size_t>(column), spec.crop.width - 1)) * spec.reduce;
    double sum = 0.0;
    for (std::size_t i = top; i < top + spec.reduce; ++i)
      for (std::size_t j = left; j < left + spec.reduce; ++j)
        sum += raw[(i * spec.frame_width + j) * spec.channels() + c];
    return sum / static_cast<double>(spec.reduce * spec.reduce);
  };
  const double fy = v - std::floor(v), fx = u - std::floor(u);
  const double value = (block(v, u) * (1 - fx) + block(v, u + 1) * fx) * (1 - fy) +
                       (block(v + 1, u) * (1 - fx) + block(v + 1, u + 1) * fx) * fy;
  return (value / 255.0 - static_cast<double>(spec.mean[c])) / static_cast<double>(spec.std[c]);
}

void equals_definition() {
  const ImageSpec spec = random_spec();
  ImageKernel kernel(spec);
  for (int turn = 0; turn < 3; ++turn) {
    const auto format = static_cast<PixelFormat>(random(0, 4));
    const bool planar = format == PixelFormat::yuv420p || format == PixelFormat::nv12;
    const bool same = random(0, 1) == 0 && !(planar && (spec.frame_width % 2 || spec.frame_height % 2));
    const std::size_t step = planar ? 2 : 1;
    const std::size_t width = same ? spec.frame_width : step * random(1, 30);
    const std::size_t height = same ? spec.frame_height : step * random(1, 30);
    const std::size_t size = bytes(format, width, height);
    const auto data = exactly<std::uint8_t>(size);
    std::generate(data.get(), data.get() + size, [] { return static_cast<std::uint8_t>(generator()); });
    const ImageView view{data.get(), format, width, height, random(0, 1) == 0};
    const auto raw = exactly<std::uint8_t>(spec.frame_height * spec.frame_width * spec.channels());
    kernel.raw(view, raw.get());
    const std::size_t plane = spec.height * spec.width;
    const auto out = exactly<float>(spec.channels() * plane);
    std::fill(out.get(), out.get() + spec.channels() * plane, 99.0f);
    kernel.tensor(view, out.get());
    for (std::size_t i = 0; i < spec.channels() * plane; ++i) {
      const double want = naive(spec, raw.get(), i / plane, i % plane / spec.width, i % spec.width);
      CHECK(std::fabs(static_cast<double>(out[i]) - want) < 1e-5);
    }
  }
}

void colours() {
  // White, black and a saturated red, in limited range, as every decoder writes them.
  const std::uint8_t frame[] = {235, 235, 16, 16,  81,  81, 235, 235, 16,
                                16,  81,  81, 128, 128, 90, 128, 128, 240};
  ImageSpec spec{2, 6, Color::rgb, 1, {0, 0, 2, 6}, {0, 0, 2, 6}, 2, 6, {0, 0, 0}, {1, 1, 1}};
  ImageKernel kernel(spec);
  std::uint8_t out[2 * 6 * 3];
  kernel.raw({frame, PixelFormat::yuv420p, 6, 2, false}, out);
  CHECK(out[0] == 255 && out[1] == 255 && out[2] == 255);
  CHECK(out[6] == 0 && out[7] == 0 && out[8] == 0);
  CHECK(out[12] >= 253 && out[13] <= 1 && out[14] <= 1);
}

void hostile() {
  const ImageSpec good{4, 4, Color::gray, 2, {0, 0, 2, 2}, {0, 0, 2, 2}, 2, 2, {0}, {1}};
  const auto broken = [&](auto change) {
    ImageSpec spec = good;
    change(spec);
    return refuses([&] { ImageKernel kernel(spec); });
  };
  CHECK(!broken([](ImageSpec&) {}));
  CHECK(broken([](ImageSpec& s) { s.reduce = 0; }) && broken([](ImageSpec& s) { s.reduce = 33; }));
  CHECK(broken([](ImageSpec& s) { s.crop.left = 1; }) && broken([](ImageSpec& s) { s.crop.height = 0; }));
  CHECK(broken([](ImageSpec& s) { s.target.top = static_cast<std::size_t>(-1); }));
  CHECK(broken([](ImageSpec& s) { s.mean.clear(); }) && broken([](ImageSpec& s) { s.std = {0}; }));
  CHECK(broken([](ImageSpec& s) { s.frame_width = 0; }) &&
        broken([](ImageSpec& s) { s.height = std::size_t{1} << 40; }));
  ImageKernel kernel(good);
  const std::uint8_t data[64] = {};
  std::uint8_t out[16];
  CHECK(refuses([&] { kernel.raw({data, PixelFormat::nv12, 3, 4, true}, out); }));
  CHECK(refuses([&] { kernel.raw({data, PixelFormat::yuv420p, 4, 3, true}, out); }));
  CHECK(refuses([&] { kernel.raw({data, PixelFormat::gray8, 0, 4, true}, out); }));
  CHECK(refuses([&] { kernel.raw({data, PixelFormat::gray8, std::size_t{1} << 33, 1, true}, out); }));
}

void two_threads() {
  const ImageSpec spec{16, 16, Color::rgb, 1, {0, 0, 16, 16}, {0, 0, 8, 8}, 8, 8, {0, 0, 0}, {1, 1, 1}};
  ImageKernel kernel(spec);
  const auto work = [&](std::size_t side, std::uint8_t level) {
    const std::vector<std::uint8_t> data(side * side * 3, level);
    std::vector<float> out(3 * 8 * 8);
    for (int turn = 0; turn < 300; ++turn) {
      kernel.tensor({data.data(), PixelFormat::bgr24, side, side, true}, out.data());
      for (const float value : out) CHECK(std::fabs(value - static_cast<float>(level) / 255.0f) < 1e-6f);
    }
  };
  std::thread other(work, 24, std::uint8_t{200});
  work(16, 10);
  other.join();
}

}  // namespace

int main() {
  for (int turn = 0; turn < 400; ++turn) equals_definition();
  colours();
  hostile();
  two_threads();
}
