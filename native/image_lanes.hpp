// What the image kernel does to rows, once for each instruction set. All of them give the same bits: whole
// numbers, and single float operations in one order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "instructions.hpp"
#include "pixel_factors.hpp"

namespace mmedge {

// Where taps lie in a row of bytes. Vector code loads windows of 16 bytes and shuffles each into its place.
struct Windows {
  const std::uint32_t* place;   // the byte of each tap
  const std::uint32_t* offset;  // where each window begins
  const std::uint8_t* control;  // 16 for each window; 0x80 leaves a byte to another window
  const std::uint8_t* words;    // of pixels: 64 for each two windows, see TapTable
  std::size_t count;            // windows for 16 bytes that are taken
};

// From two rows of taps to one row of each plane of the output.
struct Blend {
  const std::int16_t* weights;  // of each tap, negative: -32768 is one
  const std::uint32_t* start;   // the first pixel of each block
  std::size_t blocks, channels;
  std::int16_t below;   // weight of the row below; 32768 would be one
  std::size_t taps[3];  // where each channel begins in a row of taps
  float scale[3], bias[3];
  float* out[3];
};

// Bilinear taps of the raw frame's columns.
struct FloatTaps {
  const std::uint32_t *left, *right;
  const float* weight;
  std::size_t n;
};

// image_loops.hpp
struct FloatLoops {
  void (*mix_bytes)(const std::uint8_t* above, const std::uint8_t* below, float weight, std::size_t n,
                    float* out);
  void (*mix_sums)(const float* above, const float* below, float weight, std::size_t n, float* out);
  void (*resize_pixels)(const float* row, const FloatTaps& taps, bool swap, float* out);
  void (*resize_plane)(const float* plane, const FloatTaps& taps, std::size_t stride, float* out);
  void (*round_row)(const float* values, float share, std::size_t n, std::uint8_t* out);
  // [n, width] numbers to n columns: number (i, x) to out[x * step + i].
  void (*turn)(const float* rows, std::size_t n, std::size_t width, std::ptrdiff_t step, float* out);
  void (*narrow)(const std::uint16_t* samples, std::size_t n, const Narrowing& to, std::uint8_t* out);
  void (*weave)(const std::uint8_t* row, const std::size_t* offset, std::size_t stride, std::size_t n,
                std::uint8_t* out);
};

// Taps are pairs, left and right of each pixel of the output. They stand in blocks of `block` pixels; the
// last block ends with the row and may repeat pixels of the one before.
// n: taps of one plane; planes follow each other.
struct ImageLanes {
  std::size_t block;
  // Writes whole 32 bytes. Windows of two times 16 bytes stand in turn.
  void (*take)(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out);
  // Of pixels of three bytes; windows of two pixels, or halves of windows where they lie too far apart: then
  // memory is asked for the same bytes of `ahead`, a row that is wanted soon.
  void (*take3)(const std::uint8_t* row, const std::uint8_t* ahead, const Windows& windows, std::size_t n,
                std::uint8_t* out);
  // Bytes of chroma to what they add to red, green and blue, with 6 fractional bits and half a level more to
  // round by: of 16 taps 16 numbers each.
  void (*chroma)(const std::uint8_t* u, const std::uint8_t* v, std::size_t n, const Factors& factors,
                 std::int16_t* terms);
  // The same of taps in two rows, and in one row of pairs, of which windows have both bytes.
  void (*take_chroma)(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                      const Factors& factors, std::int16_t* terms);
  void (*take_pairs)(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& factors,
                     std::int16_t* terms);
  // Bytes of luma to three planes: red, green, blue.
  void (*colour)(const std::uint8_t* luma, const std::int16_t* terms, std::size_t n, const Factors& factors,
                 std::uint8_t* out);
  // 16..235 to 0..255, rounded.
  void (*expand)(const std::uint8_t* luma, std::size_t n, std::uint8_t* out);
  // Gray of pixels of three bytes.
  void (*mix)(const std::uint8_t* pixels, std::size_t n, bool bgr, std::uint8_t* out);
  // Bytes of one row, or of two, added to `sums` or beginning them; `second` may be null.
  void (*add_rows)(const std::uint8_t* row, const std::uint8_t* second, std::size_t n, bool first,
                   std::uint16_t* sums);
  // Sums of two bytes side by side, n / 2 of them, likewise.
  void (*add_pairs)(const std::uint8_t* row, std::size_t n, bool first, std::uint16_t* sums);
  // The sum of `count` of `sums`, each `step` after the other, from each on; reads (count - 1) * step beyond
  // n.
  void (*add_steps)(const std::uint16_t* sums, std::size_t n, std::size_t step, std::size_t count,
                    std::uint16_t* out);
  // sums * share, rounded half up.
  void (*average)(const std::uint16_t* sums, std::size_t n, float share, std::int16_t* out);
  void (*blend)(const std::uint8_t* above, const std::uint8_t* below, const Blend& blend);
  // The same as `take` of both rows of luma, `colour` and `blend`, where no row is wanted twice. May be null.
  // `ahead`: bytes from a row to one that is wanted soon.
  void (*blend_colour)(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                       const Windows& windows, const std::int16_t* terms_above,
                       const std::int16_t* terms_below, std::size_t n, const Factors& factors,
                       const Blend& blend);
  // The same as `take3` of both rows and `blend`, where no row is wanted twice. May be null.
  void (*blend_pixels)(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                       const Windows& windows, std::size_t n, const Blend& blend);
  void (*blend_means)(const std::int16_t* above, const std::int16_t* below, const Blend& blend);
  FloatLoops raw;
};

const ImageLanes& image_lanes(Instructions instructions);

// Each is in its own file, which is empty where the compiler's target has no such instructions.
extern const ImageLanes kScalarLanes, kSse41Lanes, kAvx2Lanes, kAvx512Lanes, kNeonLanes;

}  // namespace mmedge
