#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
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

// Buffers of exactly the right size on the heap, so that AddressSanitizer sees the first byte beyond.
template <typename T>
std::unique_ptr<T[]> exactly(std::size_t n) {
  return std::unique_ptr<T[]>(new T[n]);
}

ImageSpec random_spec() {
  ImageSpec spec{};
  spec.color = static_cast<Color>(random(0, 2));
  spec.frame_height = random(1, 40);
  spec.frame_width = random(1, 40);
  spec.height = random(1, 30);
  spec.width = random(1, 50);
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    spec.mean.push_back(0.4f + 0.1f * static_cast<float>(c));
    spec.std.push_back(0.2f);
  }
  return spec;
}

Axis one_to_one(std::size_t side) { return {side, 1, 0, side, 1.0, 0.0, 0, side, side}; }

Axis random_axis(std::size_t camera, std::size_t out) {
  Axis axis{};
  axis.camera = camera;
  axis.block = random(1, std::min<std::size_t>(camera, 5));
  const std::size_t blocks = camera / axis.block;
  axis.count = random(1, blocks);
  axis.first = random(0, blocks - axis.count);
  axis.out = out;
  axis.length = random(1, out);
  axis.start = random(0, out - axis.length);
  axis.step = static_cast<double>(random(1, 300)) / 100.0;
  axis.shift = static_cast<double>(random(0, 300)) / 100.0 - 1.5;
  if (random(0, 2) == 0) axis.cell = static_cast<double>(random(20, 40)) / 10.0;
  axis.cell_first = static_cast<double>(random(0, 30)) / 10.0;
  return axis;
}

struct Turn {
  bool swap, flip_rows, flip_columns;
};

// A pixel of the picture as it is shown, before resampling: the mean of a block. `raw` is stored, one to one.
double block_mean(const std::uint8_t* raw, std::size_t channels, const Axis& rows, const Axis& columns,
                  const Turn& turn, std::size_t c, std::size_t row, std::size_t column) {
  double sum = 0.0;
  for (std::size_t i = row * rows.block; i < (row + 1) * rows.block; ++i) {
    for (std::size_t j = column * columns.block; j < (column + 1) * columns.block; ++j) {
      const std::size_t y = turn.flip_rows ? rows.camera - 1 - i : i;
      const std::size_t x = turn.flip_columns ? columns.camera - 1 - j : j;
      const std::size_t at = turn.swap ? x * rows.camera + y : y * columns.camera + x;
      sum += raw[at * channels + c];
    }
  }
  return sum / static_cast<double>(rows.block * columns.block);
}

// The definition of one value, 0..255; -1 in the margin.
double naive(const std::uint8_t* raw, std::size_t channels, const Axis& rows, const Axis& columns,
             const Turn& turn, std::size_t c, std::size_t y, std::size_t x) {
  if (y < rows.start || y >= rows.start + rows.length || x < columns.start ||
      x >= columns.start + columns.length)
    return -1.0;
  const auto centre = [](const Axis& axis, std::size_t at) {
    double pixel = static_cast<double>(at - axis.start) + 0.5;
    if (axis.cell > 0)
      pixel = (std::floor((pixel - axis.cell_first) / axis.cell) + 0.5) * axis.cell + axis.cell_first;
    const double place = pixel * axis.step + axis.shift - 0.5;
    return std::clamp(place, 0.0, static_cast<double>(axis.count - 1));
  };
  const double v = centre(rows, y), u = centre(columns, x);
  const auto mean = [&](double row, double column) {
    const std::size_t i = rows.first + std::min(static_cast<std::size_t>(row), rows.count - 1);
    const std::size_t j = columns.first + std::min(static_cast<std::size_t>(column), columns.count - 1);
    return block_mean(raw, channels, rows, columns, turn, c, i, j);
  };
  const double fy = v - std::floor(v), fx = u - std::floor(u);
  return (mean(v, u) * (1 - fx) + mean(v, u + 1) * fx) * (1 - fy) +
         (mean(v + 1, u) * (1 - fx) + mean(v + 1, u + 1) * fx) * fy;
}

// As every instruction set of this machine makes it; they must agree in every bit.
template <typename T, typename Make>
void by_all(const ImageSpec& spec, std::size_t n, T* out, Make make) {
  bool first = true;
  const auto other = exactly<T>(n);
  for (const Instructions instructions : usable_instructions()) {
    ImageKernel kernel(spec, instructions);
    std::fill(other.get(), other.get() + n, T{99});
    make(kernel, other.get());
    CHECK(first || std::memcmp(out, other.get(), n * sizeof(T)) == 0);
    std::copy(other.get(), other.get() + n, out);
    first = false;
  }
}

void equals_definition() {
  const ImageSpec spec = random_spec();
  const std::size_t channels = spec.channels();
  for (int round = 0; round < 3; ++round) {
    const auto format = static_cast<PixelFormat>(random(0, static_cast<std::size_t>(kLastFormat)));
    const std::size_t width = 2 * random(1, 40), height = 2 * random(1, 20);
    const std::size_t size = bytes_of(format, width, height);
    const auto data = exactly<std::uint8_t>(size);
    std::generate(data.get(), data.get() + size, [] { return static_cast<std::uint8_t>(generator()); });
    const ImageView view{
        data.get(), format, width, height, random(0, 1) == 0, static_cast<Matrix>(random(0, 4))};

    ImageSpec own = spec;
    own.frame_height = height, own.frame_width = width;
    const auto raw = exactly<std::uint8_t>(height * width * channels);
    by_all(own, height * width * channels, raw.get(), [&](ImageKernel& kernel, std::uint8_t* to) {
      kernel.raw(view, ImagePlan(one_to_one(height), one_to_one(width), false, false, false), to);
    });

    const Turn turn{random(0, 1) == 0, random(0, 1) == 0, random(0, 1) == 0};
    const std::size_t down = turn.swap ? width : height, across = turn.swap ? height : width;
    const auto compare = [&](std::size_t out_height, std::size_t out_width, auto fill, auto check) {
      const Axis rows = random_axis(down, out_height), columns = random_axis(across, out_width);
      fill(ImagePlan(rows, columns, turn.swap, turn.flip_rows, turn.flip_columns));
      for (std::size_t i = 0; i < channels * out_height * out_width; ++i) {
        const std::size_t c = i % channels, x = i / channels % out_width, y = i / channels / out_width;
        check(c, y, x, naive(raw.get(), channels, rows, columns, turn, c, y, x));
      }
    };
    const std::size_t plane = spec.height * spec.width;
    const auto out = exactly<float>(channels * plane);
    compare(
        spec.height, spec.width,
        [&](const ImagePlan& plan) {
          by_all(spec, channels * plane, out.get(),
                 [&](ImageKernel& kernel, float* to) { kernel.tensor(view, plan, to); });
        },
        [&](std::size_t c, std::size_t y, std::size_t x, double value) {
          const double mean = static_cast<double>(spec.mean[c]), std = static_cast<double>(spec.std[c]);
          const double want = value < 0.0 ? 0.0 : (value / 255.0 - mean) / std;
          const double off = static_cast<double>(out[c * plane + y * spec.width + x]) - want;
          CHECK(std::fabs(off) * std * 255.0 < 0.02);  // grey levels
        });
    const auto frame = exactly<std::uint8_t>(channels * spec.frame_height * spec.frame_width);
    compare(
        spec.frame_height, spec.frame_width,
        [&](const ImagePlan& plan) {
          by_all(spec, channels * spec.frame_height * spec.frame_width, frame.get(),
                 [&](ImageKernel& kernel, std::uint8_t* to) { kernel.raw(view, plan, to); });
        },
        [&](std::size_t c, std::size_t y, std::size_t x, double value) {
          const double want = value < 0.0 ? static_cast<double>(spec.mean[c]) * 255.0 : value;
          CHECK(std::fabs(frame[(y * spec.frame_width + x) * channels + c] - want) < 0.501);
        });
  }
}

void colours() {
  // White, black and a saturated red, in limited range, as every decoder writes them.
  const std::uint8_t frame[] = {235, 235, 16, 16,  81,  81, 235, 235, 16,
                                16,  81,  81, 128, 128, 90, 128, 128, 240};
  ImageSpec spec{2, 6, Color::rgb, 2, 6, {0, 0, 0}, {1, 1, 1}};
  ImageKernel kernel(spec);
  const ImagePlan plan(one_to_one(2), one_to_one(6), false, false, false);
  std::uint8_t out[2 * 6 * 3];
  kernel.raw({frame, PixelFormat::yuv420p, 6, 2, false}, plan, out);
  CHECK(out[0] == 255 && out[1] == 255 && out[2] == 255);
  CHECK(out[6] == 0 && out[7] == 0 && out[8] == 0);
  CHECK(out[12] >= 253 && out[13] <= 1 && out[14] <= 1);
  // The same red as BT.709 writes it.
  const std::uint8_t red[] = {63, 102, 240};
  ImageSpec small{1, 1, Color::rgb, 1, 1, {0, 0, 0}, {1, 1, 1}};
  const ImagePlan pixel(one_to_one(1), one_to_one(1), false, false, false);
  ImageKernel(small).raw({red, PixelFormat::yuv444p, 1, 1, false, Matrix::bt709}, pixel, out);
  CHECK(out[0] >= 253 && out[1] <= 1 && out[2] <= 1);
}

void hostile() {
  const ImageSpec good{4, 4, Color::gray, 2, 2, {0}, {1}};
  const auto broken = [&](auto change) {
    ImageSpec spec = good;
    change(spec);
    return refuses([&] { ImageKernel kernel(spec); });
  };
  CHECK(!broken([](ImageSpec&) {}));
  CHECK(broken([](ImageSpec& s) { s.mean.clear(); }) && broken([](ImageSpec& s) { s.std = {0}; }));
  CHECK(broken([](ImageSpec& s) { s.frame_width = 0; }) &&
        broken([](ImageSpec& s) { s.height = std::size_t{1} << 40; }));
  const auto wrong = [&](auto change) {
    Axis axis{4, 2, 0, 2, 1.0, 0.0, 0, 2, 2};
    change(axis);
    return refuses([&] { ImagePlan(axis, one_to_one(2), false, false, false); }) &&
           refuses([&] { ImagePlan(one_to_one(2), axis, true, true, true); });
  };
  CHECK(!wrong([](Axis&) {}));
  CHECK(wrong([](Axis& a) { a.block = 0; }) && wrong([](Axis& a) { a.block = 129; }));
  CHECK(wrong([](Axis& a) { a.block = 5; }) && wrong([](Axis& a) { a.camera = std::size_t{1} << 33; }));
  CHECK(wrong([](Axis& a) { a.first = 1; }) && wrong([](Axis& a) { a.count = 0; }));
  CHECK(wrong([](Axis& a) { a.first = static_cast<std::size_t>(-1); }) &&
        wrong([](Axis& a) { a.length = 3; }));
  CHECK(wrong([](Axis& a) { a.start = static_cast<std::size_t>(-1); }) && wrong([](Axis& a) { a.out = 0; }));
  CHECK(wrong([](Axis& a) { a.step = std::nan(""); }) && wrong([](Axis& a) { a.step = -1.0; }));
  CHECK(wrong([](Axis& a) { a.shift = HUGE_VAL; }));
  ImageKernel kernel(good);
  const ImagePlan plan(one_to_one(4), one_to_one(4), false, false, false);
  const std::uint8_t data[64] = {};
  std::uint8_t out[16];
  kernel.raw({data, PixelFormat::gray8, 4, 4, true}, plan, out);
  CHECK(
      refuses([&] { kernel.raw({data, PixelFormat::gray8, 8, 2, true}, plan, out); }));  // of another picture
  float tensor[4];
  CHECK(refuses(
      [&] { kernel.tensor({data, PixelFormat::gray8, 4, 4, true}, plan, tensor); }));  // another output
  const auto refused = [&](PixelFormat format, std::size_t width, std::size_t height) {
    const ImagePlan odd({width, 1, 0, width, 1, 0, 0, 4, 4}, {height, 1, 0, height, 1, 0, 0, 4, 4}, true,
                        false, false);
    return refuses([&] { kernel.raw({data, format, width, height, true}, odd, out); });
  };
  CHECK(refused(PixelFormat::nv12, 3, 4) && refused(PixelFormat::yuv420p, 4, 3) &&
        refused(PixelFormat::yuv422p, 3, 4) && !refused(PixelFormat::yuv422p, 4, 3));
}

// Every pair of luma and chroma, against the definition in whole numbers.
void every_colour() {
  std::vector<std::uint8_t> frame(3 * 256 * 256);
  const ImageSpec spec{256, 256, Color::rgb, 256, 256, {0, 0, 0}, {1, 1, 1}};
  const ImagePlan plan(one_to_one(256), one_to_one(256), false, false, false);
  std::vector<std::uint8_t> out(3 * 256 * 256);
  std::vector<float> tensor(3 * 256 * 256);
  for (int turn = 0; turn < 20; ++turn) {
    for (std::size_t i = 0; i < 256 * 256; ++i) {
      frame[i] = static_cast<std::uint8_t>(i);
      frame[256 * 256 + i] = static_cast<std::uint8_t>(turn < 10 ? i >> 8 : generator());
      frame[2 * 256 * 256 + i] = static_cast<std::uint8_t>(turn < 10 ? generator() : i >> 8);
    }
    const ImageView view{frame.data(), PixelFormat::yuv444p, 256,
                         256,          turn % 2 == 0,        static_cast<Matrix>(turn % 5)};
    const Factors m = factors_of(view);
    by_all(spec, out.size(), out.data(),
           [&](ImageKernel& kernel, std::uint8_t* to) { kernel.raw(view, plan, to); });
    by_all(spec, tensor.size(), tensor.data(),
           [&](ImageKernel& kernel, float* to) { kernel.tensor(view, plan, to); });
    for (std::size_t i = 0; i < 256 * 256; ++i) {
      const int gray = luma_term(std::max(frame[i] - m.black, 0), m.luma);
      const int u = frame[256 * 256 + i] - 128, v = frame[2 * 256 * 256 + i] - 128;
      const int want[] = {gray + chroma_term(v, m.red_v),
                          gray + chroma_term(u, -m.green_u) + chroma_term(v, -m.green_v),
                          gray + chroma_term(u, m.blue_u)};
      for (std::size_t c = 0; c < 3; ++c) {
        const int value = std::clamp((want[c] + 32) >> 6, 0, 255);
        CHECK(out[3 * i + c] == value);
        CHECK(std::fabs(tensor[c * 256 * 256 + i] * 255.0f - static_cast<float>(value)) < 1e-4f);
      }
    }
  }
}

void instructions() {
  CHECK(usable_instructions().back() == Instructions::scalar);
  for (const Instructions one : usable_instructions()) CHECK(instructions_named(name_of(one)) == one);
  CHECK(refuses([] { instructions_named("sse9"); }) && refuses([] { instructions_named(""); }));
}

void two_threads() {
  const ImageSpec spec{16, 16, Color::rgb, 8, 8, {0, 0, 0}, {1, 1, 1}};
  ImageKernel kernel(spec);
  const auto work = [&](std::size_t side, std::uint8_t level) {
    const std::vector<std::uint8_t> data(side * side * 3, level);
    std::vector<float> out(3 * 8 * 8);
    const auto step = static_cast<double>(side) / 8.0;
    const Axis axis{side, 1, 0, side, step, 0.0, 0, 8, 8};
    const ImagePlan plan(axis, axis, level > 100, false, level > 100);
    for (int turn = 0; turn < 300; ++turn) {
      kernel.tensor({data.data(), PixelFormat::bgr24, side, side, true}, plan, out.data());
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
  every_colour();
  instructions();
  hostile();
  two_threads();
}
