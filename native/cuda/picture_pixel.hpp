// One number of a network's input, as every image kernel of the CPU defines it, for a thread of a GPU: the
// same whole numbers, so the same bits. It compiles for both; native/tests/test_cuda_picture.cpp holds it
// against the CPU's kernel.
#pragma once

#include <cstdint>

#include "pixel_factors.hpp"

#ifdef __CUDACC__
#define MMEDGE_ROLLED _Pragma("unroll 1")  // unrolled, the block loops are ten times the code
#else
#define MMEDGE_ROLLED
#endif

namespace mmedge::cuda {

// How the bytes of the camera's picture become pixels.
enum class Pixels : std::int32_t { kGray, kColour, kMixed, kYuv };

// The two blocks (pixels, where nothing is averaged) that a row or a column of the output lies between.
struct Tap {
  std::int32_t first, second;
  std::int32_t weight;  // of the second, with 15 fractional bits
};

// Only whole numbers and floats of 4 bytes: its bytes are what the GPU gets.
struct Picture {
  Pixels pixels;
  std::int32_t expand;                                        // luma spans 16..235
  std::int32_t luma_bytes, chroma_bytes;                      // of a row
  std::int32_t u, v;                                          // where chroma begins, after the luma
  std::int32_t luma_step, chroma_step;                        // bytes from one sample to the next
  std::int32_t across, down;                                  // columns and rows share chroma by twos: 0 or 1
  std::int32_t deep, shift, narrow, luma_bias, chroma_bias;   // samples of 10 bits: native/pixel_factors.hpp
  std::int32_t black, luma, red_v, green_u, green_v, blue_u;  // native/pixel_factors.hpp
  std::int32_t place[3];  // which byte of a pixel of three, or which of red, green, blue: of each channel
  std::int32_t block_rows, block_columns, origin_row, origin_column;
  std::int32_t channels, height, width;  // of the output
  std::int32_t rows, columns;            // that are filled, in the order in which the picture is stored
  std::int32_t base, row_step, column_step;
  float share;  // of a sum in a mean with 7 fractional bits
  float scale[3], bias[3];
};

MMEDGE_BOTH float product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);  // never fused with an addition
#else
  return a * b;
#endif
}

MMEDGE_BOTH float sum(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

MMEDGE_BOTH std::int32_t byte_of(std::int32_t value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

MMEDGE_BOTH std::int32_t luma_of(const Picture& p, std::int32_t luma) {
  if (p.expand == 0) return luma;
  const std::int32_t above = luma > 16 ? luma - 16 : 0;
  return byte_of(above + ((above * kExpandShare + 16384) >> 15));
}

MMEDGE_BOTH std::int32_t sample_of(const Picture& p, const std::uint8_t* at, std::int32_t bias) {
  return p.deep == 0 ? at[0] : narrowed(at[0] | at[1] << 8, p.shift, p.narrow, bias);
}

// Channel `c` of the pixel that is stored at (y, x): 0..255.
MMEDGE_BOTH std::int32_t pixel(const Picture& p, const std::uint8_t* from, std::int32_t y, std::int32_t x,
                               std::int32_t c) {
  const std::uint8_t* const row = from + static_cast<std::int64_t>(y) * p.luma_bytes;
  if (p.pixels == Pixels::kGray) return luma_of(p, sample_of(p, row + x * p.luma_step, p.luma_bias));
  if (p.pixels == Pixels::kColour) return row[3 * x + p.place[c]];
  if (p.pixels == Pixels::kMixed)
    return (kGrayRed * row[3 * x + p.place[0]] + kGrayGreen * row[3 * x + p.place[1]] +
            kGrayBlue * row[3 * x + p.place[2]] + 8192) >>
           14;
  const std::int64_t at =
      static_cast<std::int64_t>(y >> p.down) * p.chroma_bytes + (x >> p.across) * p.chroma_step;
  const std::int32_t u = sample_of(p, from + p.u + at, p.chroma_bias) - 128;
  const std::int32_t v = sample_of(p, from + p.v + at, p.chroma_bias) - 128;
  const std::int32_t term = p.place[c] == 0   ? chroma_term(v, p.red_v)
                            : p.place[c] == 1 ? chroma_term(u, -p.green_u) + chroma_term(v, -p.green_v)
                                              : chroma_term(u, p.blue_u);
  const std::int32_t luma = sample_of(p, row + x * p.luma_step, p.luma_bias);
  const std::int32_t above = luma > p.black ? luma - p.black : 0;
  return byte_of((luma_term(above, p.luma) + term + kHalfLevel) >> 6);
}

// The same of a block of pixels, with 7 fractional bits where there is more than one.
MMEDGE_BOTH std::int32_t mean(const Picture& p, const std::uint8_t* from, std::int32_t row,
                              std::int32_t column, std::int32_t c) {
  if (p.block_rows * p.block_columns == 1) return pixel(p, from, row, column, c);
  std::int32_t all = 0;
  MMEDGE_ROLLED
  for (std::int32_t y = 0; y < p.block_rows; ++y) MMEDGE_ROLLED
  for (std::int32_t x = 0; x < p.block_columns; ++x)
    all += pixel(p, from, p.origin_row + row * p.block_rows + y,
                 p.origin_column + column * p.block_columns + x, c);
  return static_cast<std::int32_t>(sum(product(static_cast<float>(all), p.share), 0.5f));
}

// Writes channel `c` of element (y, x), in the order in which the picture is stored, to where it is shown.
MMEDGE_BOTH void write_number(const Picture& p, const std::uint8_t* from, const Tap* rows, const Tap* columns,
                              std::int32_t y, std::int32_t x, std::int32_t c, float* out) {
  const Tap row = rows[y], column = columns[x];
  // Weights are negative: of the CPU's 16 bits, -32768 is one.
  const std::int32_t left = column.weight - 32768, right = -column.weight;
  const std::int32_t below_left = (left * row.weight + 16384) >> 15;
  const std::int32_t below_right = (right * row.weight + 16384) >> 15;
  const std::int32_t all = mean(p, from, row.first, column.first, c) * (left - below_left) +
                           mean(p, from, row.first, column.second, c) * (right - below_right) +
                           mean(p, from, row.second, column.first, c) * below_left +
                           mean(p, from, row.second, column.second, c) * below_right;
  const std::int64_t at = static_cast<std::int64_t>(c) * p.height * p.width + p.base +
                          static_cast<std::int64_t>(y) * p.row_step +
                          static_cast<std::int64_t>(x) * p.column_step;
  out[at] = sum(product(static_cast<float>(all), p.scale[c]), p.bias[c]);
}

}  // namespace mmedge::cuda
