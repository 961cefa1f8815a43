// The definition of every vector kernel, one value at a time.
#include <algorithm>

#include "image_loops.hpp"

namespace mmedge {
namespace {

void take(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = row[windows.place[i]];
}

void take3(const std::uint8_t* row, const std::uint8_t*, const Windows& windows, std::size_t n,
           std::uint8_t* out) {
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t i = 0; i < n; ++i) out[c * n + i] = row[windows.place[i] + c];
}

void terms_of(std::uint8_t u, std::uint8_t v, const Factors& m, std::int16_t* to) {
  const std::int32_t cu = u - 128, cv = v - 128;
  to[0] = static_cast<std::int16_t>(chroma_term(cv, m.red_v) + kHalfLevel);
  to[16] = static_cast<std::int16_t>(chroma_term(cu, -m.green_u) + chroma_term(cv, -m.green_v) + kHalfLevel);
  to[32] = static_cast<std::int16_t>(chroma_term(cu, m.blue_u) + kHalfLevel);
}

void chroma(const std::uint8_t* u, const std::uint8_t* v, std::size_t n, const Factors& m,
            std::int16_t* terms) {
  for (std::size_t i = 0; i < n; ++i) terms_of(u[i], v[i], m, terms + i / 16 * 48 + i % 16);
}

void take_chroma(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                 const Factors& m, std::int16_t* terms) {
  for (std::size_t i = 0; i < n; ++i)
    terms_of(u[windows.place[i]], v[windows.place[i]], m, terms + i / 16 * 48 + i % 16);
}

void take_pairs(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& m,
                std::int16_t* terms) {
  for (std::size_t i = 0; i < n; ++i)
    terms_of(uv[windows.place[2 * i]], uv[windows.place[2 * i + 1]], m, terms + i / 16 * 48 + i % 16);
}

void colour(const std::uint8_t* luma, const std::int16_t* terms, std::size_t n, const Factors& m,
            std::uint8_t* out) {
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = 0; i < n; ++i) {
      const std::int32_t gray = luma_term(std::max(luma[i] - m.black, 0), m.luma);
      const std::int32_t sum = gray + terms[i / 16 * 48 + 16 * c + i % 16];
      out[c * n + i] = static_cast<std::uint8_t>(std::clamp(sum >> 6, 0, 255));
    }
  }
}

void expand(const std::uint8_t* luma, std::size_t n, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i) out[i] = expanded(luma[i]);
}

void mix(const std::uint8_t* pixels, std::size_t n, bool bgr, std::uint8_t* out) {
  for (std::size_t i = 0; i < n; ++i, pixels += 3)
    out[i] = bgr ? gray_of(pixels[2], pixels[1], pixels[0]) : gray_of(pixels[0], pixels[1], pixels[2]);
}

void add_rows(const std::uint8_t* row, const std::uint8_t* second, std::size_t n, bool first,
              std::uint16_t* sums) {
  for (std::size_t i = 0; i < n; ++i)
    sums[i] =
        static_cast<std::uint16_t>((first ? 0 : sums[i]) + row[i] + (second != nullptr ? second[i] : 0));
}

void add_pairs(const std::uint8_t* row, std::size_t n, bool first, std::uint16_t* sums) {
  for (std::size_t i = 0; i < n / 2; ++i)
    sums[i] = static_cast<std::uint16_t>((first ? 0 : sums[i]) + row[2 * i] + row[2 * i + 1]);
}

void add_steps(const std::uint16_t* sums, std::size_t n, std::size_t step, std::size_t count,
               std::uint16_t* out) {
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = sums[i];
    for (std::size_t k = 1; k < count; ++k) out[i] = static_cast<std::uint16_t>(out[i] + sums[i + k * step]);
  }
}

void average(const std::uint16_t* sums, std::size_t n, float share, std::int16_t* out) {
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<std::int16_t>(static_cast<std::int32_t>(static_cast<float>(sums[i]) * share + 0.5f));
}

template <typename T>
void blend_rows(const T* above, const T* below, const Blend& blend) {
  for (std::size_t x = 0; x < blend.blocks; ++x) {
    std::int32_t first[2], second[2];
    for (std::size_t i = 0; i < 2; ++i) {
      const std::int32_t all = blend.weights[2 * x + i];
      second[i] = (all * blend.below + 16384) >> 15, first[i] = all - second[i];
    }
    for (std::size_t c = 0; c < blend.channels; ++c) {
      const T *const a = above + blend.taps[c] + 2 * x, *const b = below + blend.taps[c] + 2 * x;
      const std::int32_t sum = a[0] * first[0] + a[1] * first[1] + b[0] * second[0] + b[1] * second[1];
      blend.out[c][blend.start[x]] = static_cast<float>(sum) * blend.scale[c] + blend.bias[c];
    }
  }
}

}  // namespace

const ImageLanes kScalarLanes{1,
                              take,
                              take3,
                              chroma,
                              take_chroma,
                              take_pairs,
                              colour,
                              expand,
                              mix,
                              add_rows,
                              add_pairs,
                              add_steps,
                              average,
                              blend_rows<std::uint8_t>,
                              nullptr,
                              nullptr,
                              blend_rows<std::int16_t>,
                              kLoops};

const ImageLanes& image_lanes(Instructions instructions) {
#if defined(__x86_64__)
  if (instructions == Instructions::sse41) return kSse41Lanes;
  if (instructions == Instructions::avx2) return kAvx2Lanes;
  if (instructions == Instructions::avx512) return kAvx512Lanes;
#elif defined(__aarch64__)
  if (instructions == Instructions::neon) return kNeonLanes;
#endif
  (void)instructions;
  return kScalarLanes;
}

}  // namespace mmedge
