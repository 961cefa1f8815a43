// Any picture, geometry and description: refused, or within its memory and with the same bits from every
// instruction set of this machine.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "image.hpp"

namespace {

using namespace mmedge;

constexpr std::size_t kLongest = 150;  // pixels of a side: several vectors of every kind

double number(FuzzedDataProvider& in) {
  return in.ConsumeBool() ? in.ConsumeFloatingPointInRange<double>(-4.0, 4.0)
                          : in.ConsumeFloatingPoint<double>();
}

std::size_t side(FuzzedDataProvider& in) { return in.ConsumeIntegralInRange<std::size_t>(0, kLongest); }

// Mostly one that can be: chance alone would hardly find any.
Axis axis(FuzzedDataProvider& in, std::size_t camera, std::size_t out) {
  if (in.ConsumeIntegralInRange(0, 15) == 0) {
    const auto any = [&] { return in.ConsumeBool() ? side(in) : in.ConsumeIntegral<std::size_t>(); };
    const std::size_t block = any(), first = any(), count = any();
    const double step = number(in), shift = number(in);
    const std::size_t start = any(), length = any();
    return {camera, block, first, count, step, shift, start, length, out, number(in), number(in)};
  }
  const auto up_to = [&](std::size_t low, std::size_t high) {
    return in.ConsumeIntegralInRange(low, std::max(low, high));
  };
  const std::size_t block = up_to(1, in.ConsumeBool() ? 1 : std::min<std::size_t>(camera, 130));
  const std::size_t blocks = camera / block, count = up_to(1, blocks);
  const std::size_t first = up_to(0, std::max(count, blocks) - count), length = up_to(1, out);
  const std::size_t start = up_to(0, std::max(length, out) - length);
  const double cell = in.ConsumeBool() ? 0.0 : in.ConsumeFloatingPointInRange<double>(1.0, 9.0);
  const double step = number(in), shift = number(in);
  return {camera, block, first, count, step, shift, start, length, out, cell, number(in)};
}

// Of exactly this size on the heap, so that AddressSanitizer sees the first byte beyond.
template <typename T>
std::unique_ptr<T[]> filled(std::size_t n, int value) {
  std::unique_ptr<T[]> memory(new T[n]);
  if (n > 0) std::memset(memory.get(), value, n * sizeof(T));
  return memory;
}

template <typename T, typename Make>
void same_by_all(const ImageSpec& spec, std::size_t n, Make make) {
  std::unique_ptr<T[]> first;
  for (const Instructions instructions : usable_instructions()) {
    ImageKernel kernel(spec, instructions);
    auto out = filled<T>(n, 0xff);
    for (int turn = 0; turn < 2; ++turn) make(kernel, out.get());  // planned, and known
    if (!first)
      first = std::move(out);
    else if (std::memcmp(first.get(), out.get(), n * sizeof(T)) != 0)
      std::abort();
  }
}

void one(FuzzedDataProvider& in) {
  ImageSpec spec{};
  spec.color = in.PickValueInArray({Color::gray, Color::rgb, Color::bgr});
  const auto format = static_cast<PixelFormat>(in.ConsumeIntegralInRange(0, static_cast<int>(kLastFormat)));
  const std::size_t height = side(in), width = side(in);
  const bool swap = in.ConsumeBool(), raw = in.ConsumeBool();
  spec.frame_height = side(in), spec.frame_width = side(in), spec.height = side(in), spec.width = side(in);
  for (std::size_t c = 0; c < spec.channels(); ++c) {
    spec.mean.push_back(in.ConsumeFloatingPointInRange<float>(-1.0f, 2.0f));
    spec.std.push_back(in.ConsumeBool() ? 0.2f : in.ConsumeFloatingPoint<float>());
  }
  const Axis rows = axis(in, swap ? width : height, raw ? spec.frame_height : spec.height);
  const Axis columns = axis(in, swap ? height : width, raw ? spec.frame_width : spec.width);
  const ImagePlan plan(rows, columns, swap, in.ConsumeBool(), in.ConsumeBool());
  const bool full_range = in.ConsumeBool();
  const auto matrix = static_cast<Matrix>(in.ConsumeIntegralInRange(0, 4));
  const std::size_t size = bytes_of(format, width, height);
  const auto data = filled<std::uint8_t>(size, in.ConsumeIntegral<std::uint8_t>());
  in.ConsumeData(data.get(), size);
  const ImageView view{data.get(), format, width, height, full_range, matrix};
  if (raw)
    same_by_all<std::uint8_t>(spec, spec.frame_height * spec.frame_width * spec.channels(),
                              [&](ImageKernel& kernel, std::uint8_t* out) { kernel.raw(view, plan, out); });
  else
    same_by_all<float>(spec, spec.height * spec.width * spec.channels(),
                       [&](ImageKernel& kernel, float* out) { kernel.tensor(view, plan, out); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider in(data, size);
  try {
    one(in);
  } catch (const std::invalid_argument&) {  // what cannot be is refused
  }
  return 0;
}
