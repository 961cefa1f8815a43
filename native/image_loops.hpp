// What the raw frame needs, in float32 and in the order of the numpy oracle, so that both round every pixel
// the same way. Plain loops that each compiler turns into the instructions of the file that includes them;
// theirs alone.
#pragma once

#include "image_lanes.hpp"

namespace mmedge {
namespace {

// Three interleaved channels and one neighbour, or four of any numbers: one vector.
using Pixel = float __attribute__((vector_size(16)));

inline Pixel load_pixel(const float* from) {
  Pixel pixel;
  __builtin_memcpy(&pixel, from, sizeof pixel);
  return pixel;
}

template <typename T>
void mix_rows(const T* __restrict above, const T* __restrict below, float weight, std::size_t n,
              float* __restrict out) {
  for (std::size_t i = 0; i < n; ++i) {
    const auto a = static_cast<float>(above[i]), b = static_cast<float>(below[i]);
    out[i] = a + (b - a) * weight;
  }
}

// Writes one float beyond the last pixel.
void resize_pixels(const float* __restrict row, const FloatTaps& taps, bool swap, float* __restrict out) {
  const FloatTaps t = taps;
  for (std::size_t x = 0; x < t.n; ++x) {
    const Pixel a = load_pixel(row + 3 * t.left[x]), b = load_pixel(row + 3 * t.right[x]);
    const Pixel value = a + (b - a) * t.weight[x];
    const Pixel ordered = swap ? Pixel{value[2], value[1], value[0], value[3]} : value;
    __builtin_memcpy(out + 3 * x, &ordered, sizeof ordered);
  }
}

void resize_plane(const float* __restrict plane, const FloatTaps& taps, std::size_t stride,
                  float* __restrict out) {
  const FloatTaps t = taps;
  for (std::size_t x = 0; x < t.n; ++x) {
    const float a = plane[t.left[x]], b = plane[t.right[x]];
    out[x * stride] = a + (b - a) * t.weight[x];
  }
}

void round_row(const float* __restrict values, float share, std::size_t n, std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<std::uint8_t>(static_cast<int>(values[i] * share + 0.5f));
}

void turn(const float* __restrict rows, std::size_t n, std::size_t width, std::ptrdiff_t step,
          float* __restrict out) {
  std::size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float* const from = rows + i * width;
    float* to = out + i;
    std::size_t x = 0;
    for (; x + 4 <= width; x += 4) {
      const Pixel a = load_pixel(from + x), b = load_pixel(from + width + x),
                  c = load_pixel(from + 2 * width + x), d = load_pixel(from + 3 * width + x);
      for (int k = 0; k < 4; ++k, to += step) {
        const Pixel column{a[k], b[k], c[k], d[k]};
        __builtin_memcpy(to, &column, sizeof column);
      }
    }
    for (; x < width; ++x, to += step)
      for (std::size_t k = 0; k < 4; ++k) to[k] = from[k * width + x];
  }
  for (; i < n; ++i)
    for (std::size_t x = 0; x < width; ++x)
      out[static_cast<std::ptrdiff_t>(x) * step + static_cast<std::ptrdiff_t>(i)] = rows[i * width + x];
}

void narrow(const std::uint16_t* __restrict samples, std::size_t n, const Narrowing& to,
            std::uint8_t* __restrict out) {
  const Narrowing by = to;
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<std::uint8_t>(narrowed(samples[i], by.shift, by.factor, by.bias));
}

// Three bytes of each pixel, of any layout, one after the other.
void weave(const std::uint8_t* __restrict row, const std::size_t* offset, std::size_t stride, std::size_t n,
           std::uint8_t* __restrict out) {
  const std::uint8_t *const first = row + offset[0], *const second = row + offset[1],
                            *const third = row + offset[2];
  if (stride == 3) {
    for (std::size_t x = 0; x < n; ++x)
      out[3 * x] = first[3 * x], out[3 * x + 1] = second[3 * x], out[3 * x + 2] = third[3 * x];
  } else {
    for (std::size_t x = 0; x < n; ++x)
      out[3 * x] = first[x], out[3 * x + 1] = second[x], out[3 * x + 2] = third[x];
  }
}

constexpr FloatLoops kLoops{
    mix_rows<std::uint8_t>, mix_rows<float>, resize_pixels, resize_plane, round_row, turn, narrow, weave};

}  // namespace
}  // namespace mmedge
