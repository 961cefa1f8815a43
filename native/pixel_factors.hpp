// What turns luma and chroma into red, green and blue, in whole numbers.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define MMEDGE_BOTH __host__ __device__ inline
#else
#define MMEDGE_BOTH inline
#endif

namespace mmedge {

// Of chroma 13 fractional bits, of luma 14: every factor fits 16 bits.
struct Factors {
  std::int16_t black, luma, red_v, green_u, green_v, blue_u;
};

// What luma above black, or chroma less 128, adds to a colour: 6 fractional bits, rounded half up. Both are
// one vector instruction, and sums of them fit 16 bits or are beyond white.
MMEDGE_BOTH std::int32_t luma_term(std::int32_t above, std::int32_t factor) {
  return (above * 128 * factor + 16384) >> 15;
}
MMEDGE_BOTH std::int32_t chroma_term(std::int32_t chroma, std::int32_t factor) {
  return (chroma * 256 * factor + 16384) >> 15;
}
constexpr std::int32_t kHalfLevel = 32;

// How a sample of 10 bits in two bytes becomes one of 8: shifted, times `factor` with 15 fractional bits,
// plus `bias`, which rounds.
struct Narrowing {
  std::int32_t shift, factor, bias;
};

// round(sample / 4), or of a full range round(sample * 255 / 1023), chroma about its middle.
constexpr Narrowing narrowing_of(std::int32_t shift, bool full_range, bool chroma) {
  return {shift, full_range ? 8168 : 8192, full_range && chroma ? 16384 + 12300 : 16384};
}

MMEDGE_BOTH std::int32_t narrowed(std::int32_t sample, std::int32_t shift, std::int32_t factor,
                                  std::int32_t bias) {
  const std::int32_t value = ((sample >> shift & 1023) * factor + bias) >> 15;
  return value < 255 ? value : 255;
}

// round((luma - 16) * 255 / 219), clamped: the luma above black, and a share of it that is one vector
// instruction.
constexpr std::int32_t kExpandShare = 5386;  // 36 / 219 with 15 fractional bits

constexpr std::uint8_t expanded(std::uint8_t luma) {
  const std::int32_t above = luma > 16 ? luma - 16 : 0;
  const std::int32_t value = above + ((above * kExpandShare + 16384) >> 15);
  return static_cast<std::uint8_t>(value < 255 ? value : 255);
}

constexpr bool expanding_is_exact() {
  for (int luma = 0; luma < 256; ++luma) {
    const int above = luma > 16 ? luma - 16 : 0;
    const int exact = (above * 510 + 219) / 438;
    if (expanded(static_cast<std::uint8_t>(luma)) != (exact < 255 ? exact : 255)) return false;
  }
  return true;
}
static_assert(expanding_is_exact());

// Shares of red, green and blue in gray, with 14 fractional bits.
constexpr std::int16_t kGrayRed = 4899, kGrayGreen = 9617, kGrayBlue = 1868;

constexpr std::uint8_t gray_of(std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  return static_cast<std::uint8_t>((kGrayRed * red + kGrayGreen * green + kGrayBlue * blue + 8192) >> 14);
}

}  // namespace mmedge
