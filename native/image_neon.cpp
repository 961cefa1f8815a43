#if defined(__aarch64__)
#include <arm_neon.h>

#include "image_loops.hpp"
#include "image_windows.hpp"

namespace mmedge {
namespace {

// 16 taps of a row, of each second window.
template <std::size_t kCount>
uint8x16_t take_16(const std::uint8_t* row, const std::uint32_t* offset, const std::uint8_t* control) {
  const auto taps = [&](std::size_t k) {
    return vqtbl1q_u8(vld1q_u8(row + offset[2 * k]), vld1q_u8(control + 32 * k));
  };
  uint8x16_t all = taps(0);
  for (std::size_t k = 1; k < kCount; ++k) all = vorrq_u8(all, taps(k));
  return all;
}

template <std::size_t kCount>
void take_by(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 32, offset += 2 * kCount, control += 32 * kCount) {
    vst1q_u8(out + i, take_16<kCount>(row, offset, control));
    vst1q_u8(out + i + 16, take_16<kCount>(row, offset + 1, control + 16));
  }
}

void take(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  by_count(windows.count, [&](auto k) { take_by<decltype(k)::value>(row, windows, n, out); });
}

struct Bytes3 {
  uint8x16_t plane[3];
};

// Taps of 8 pixels of three bytes.
template <bool kHalves>
Bytes3 take_3(const std::uint8_t* row, const std::uint32_t* offset, const std::uint8_t* control) {
  constexpr std::size_t kStep = kHalves ? 2 : 1;
  // Each 32 bits: left and right of two pixels, of one channel.
  const auto pixels = [&](std::size_t k) {
    const uint8x16_t bytes =
        kHalves ? vcombine_u8(vld1_u8(row + offset[k * kStep]), vld1_u8(row + offset[k * kStep + kStep - 1]))
                : vld1q_u8(row + offset[k]);
    return vreinterpretq_u32_u8(vqtbl1q_u8(bytes, vld1q_u8(control + 16 * k)));
  };
  // In the order of the halves of AVX2's registers: pixels 0-1, 4-5, 2-3, 6-7.
  const uint32x4_t first = pixels(0), third = pixels(1), second = pixels(2), fourth = pixels(3);
  const auto pair = [](uint32x4_t a, uint32x4_t b) { return vreinterpretq_u64_u32(vzip1q_u32(a, b)); };
  const auto rest = [](uint32x4_t a, uint32x4_t b) { return vreinterpretq_u64_u32(vzip2q_u32(a, b)); };
  const uint64x2_t low = pair(first, second), high = pair(third, fourth);
  return {{vreinterpretq_u8_u64(vzip1q_u64(low, high)), vreinterpretq_u8_u64(vzip2q_u64(low, high)),
           vreinterpretq_u8_u64(vzip1q_u64(rest(first, second), rest(third, fourth)))}};
}

template <bool kHalves>
void take3_by(const std::uint8_t* row, const std::uint8_t* ahead, const Windows& windows, std::size_t n,
              std::uint8_t* out) {
  constexpr std::size_t kStep = kHalves ? 2 : 1;
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += 4 * kStep, control += 64) {
    for (std::size_t k = 0; kHalves && k < 8; k += 2) __builtin_prefetch(ahead + offset[k]);
    const Bytes3 taps = take_3<kHalves>(row, offset, control);
    for (std::size_t c = 0; c < 3; ++c) vst1q_u8(out + c * n + i, taps.plane[c]);
  }
}

void take3(const std::uint8_t* row, const std::uint8_t* ahead, const Windows& windows, std::size_t n,
           std::uint8_t* out) {
  windows.count == 8 ? take3_by<true>(row, ahead, windows, n, out)
                     : take3_by<false>(row, ahead, windows, n, out);
}

// 8 of U and of V less 128, each in the upper half of its number.
void store_colours(int16x8_t cu, int16x8_t cv, const Factors& m, std::int16_t* terms) {
  const int16x8_t half = vdupq_n_s16(kHalfLevel);
  const auto term = [](int16x8_t chroma, int factor) {
    return vqrdmulhq_n_s16(chroma, static_cast<std::int16_t>(factor));
  };
  vst1q_s16(terms, vaddq_s16(term(cv, m.red_v), half));
  vst1q_s16(terms + 16, vaddq_s16(vaddq_s16(term(cu, -m.green_u), term(cv, -m.green_v)), half));
  vst1q_s16(terms + 32, vaddq_s16(term(cu, m.blue_u), half));
}

inline int16x8_t centred(uint8x8_t bytes) {
  return vreinterpretq_s16_u16(vshll_n_u8(veor_u8(bytes, vdup_n_u8(0x80)), 8));
}

void chroma(const std::uint8_t* u, const std::uint8_t* v, std::size_t n, const Factors& m,
            std::int16_t* terms) {
  for (std::size_t i = 0; i < n; i += 8)
    store_colours(centred(vld1_u8(u + i)), centred(vld1_u8(v + i)), m, terms + i / 16 * 48 + i % 16);
}

template <std::size_t kCount>
void take_chroma_by(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                    const Factors& m, std::int16_t* terms) {
  for (std::size_t unit = 0; unit < n / 16; ++unit) {
    const std::size_t at = first_window<kCount>(unit);
    const uint8x16_t cu = take_16<kCount>(u, windows.offset + at, windows.control + 16 * at);
    const uint8x16_t cv = take_16<kCount>(v, windows.offset + at, windows.control + 16 * at);
    std::int16_t* const to = terms + 48 * unit;
    store_colours(centred(vget_low_u8(cu)), centred(vget_low_u8(cv)), m, to);
    store_colours(centred(vget_high_u8(cu)), centred(vget_high_u8(cv)), m, to + 8);
  }
}

void take_chroma(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                 const Factors& m, std::int16_t* terms) {
  by_count(windows.count, [&](auto k) { take_chroma_by<decltype(k)::value>(u, v, windows, n, m, terms); });
}

template <std::size_t kCount>
void take_pairs_by(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& m,
                   std::int16_t* terms) {
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += 2 * kCount, control += 32 * kCount) {
    const uint8x16_t low = take_16<kCount>(uv, offset, control);
    const uint8x16_t high = take_16<kCount>(uv, offset + 1, control + 16);
    const uint8x16_t cu = vuzp1q_u8(low, high), cv = vuzp2q_u8(low, high);
    store_colours(centred(vget_low_u8(cu)), centred(vget_low_u8(cv)), m, terms + 3 * i);
    store_colours(centred(vget_high_u8(cu)), centred(vget_high_u8(cv)), m, terms + 3 * i + 8);
  }
}

void take_pairs(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& m,
                std::int16_t* terms) {
  by_count(windows.count, [&](auto k) { take_pairs_by<decltype(k)::value>(uv, windows, n, m, terms); });
}

// 16 taps of luma as red, green and blue.
inline Bytes3 coloured(uint8x16_t luma, const std::int16_t* terms, const Factors& m) {
  const uint8x16_t above = vqsubq_u8(luma, vdupq_n_u8(static_cast<std::uint8_t>(m.black)));
  const auto gray = [&](uint8x8_t bytes) {
    return vqrdmulhq_n_s16(vreinterpretq_s16_u16(vshll_n_u8(bytes, 7)), m.luma);
  };
  const int16x8_t low = gray(vget_low_u8(above)), high = gray(vget_high_u8(above));
  Bytes3 made;
  for (std::size_t c = 0; c < 3; ++c)  // sums beyond 16 bits are beyond white
    made.plane[c] = vcombine_u8(vqshrun_n_s16(vqaddq_s16(low, vld1q_s16(terms + 16 * c)), 6),
                                vqshrun_n_s16(vqaddq_s16(high, vld1q_s16(terms + 16 * c + 8)), 6));
  return made;
}

void colour(const std::uint8_t* luma, const std::int16_t* terms, std::size_t n, const Factors& m,
            std::uint8_t* out) {
  for (std::size_t i = 0; i < n; i += 16) {
    const Bytes3 made = coloured(vld1q_u8(luma + i), terms + 3 * i, m);
    for (std::size_t c = 0; c < 3; ++c) vst1q_u8(out + c * n + i, made.plane[c]);
  }
}

void expand(const std::uint8_t* luma, std::size_t n, std::uint8_t* out) {
  const int16x8_t share = vdupq_n_s16(kExpandShare);
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint8x8_t above = vqsub_u8(vld1_u8(luma + i), vdup_n_u8(16));
    const int16x8_t more = vqrdmulhq_s16(vreinterpretq_s16_u16(vmovl_u8(above)), share);
    vst1_u8(out + i, vqadd_u8(above, vqmovun_s16(more)));
  }
  for (; i < n; ++i) out[i] = expanded(luma[i]);
}

void mix(const std::uint8_t* pixels, std::size_t n, bool bgr, std::uint8_t* out) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint8x8x3_t bytes = vld3_u8(pixels + 3 * i);
    const uint16x8_t red = vmovl_u8(bytes.val[bgr ? 2 : 0]), green = vmovl_u8(bytes.val[1]),
                     blue = vmovl_u8(bytes.val[bgr ? 0 : 2]);
    const auto gray = [](uint16x4_t r, uint16x4_t g, uint16x4_t b) {
      const uint32x4_t sum = vmlal_n_u16(vmull_n_u16(r, kGrayRed), g, kGrayGreen);
      return vrshrn_n_u32(vmlal_n_u16(sum, b, kGrayBlue), 14);  // rounds half up
    };
    const uint16x4_t low = gray(vget_low_u16(red), vget_low_u16(green), vget_low_u16(blue));
    const uint16x4_t high = gray(vget_high_u16(red), vget_high_u16(green), vget_high_u16(blue));
    vst1_u8(out + i, vmovn_u16(vcombine_u16(low, high)));
  }
  for (; i < n; ++i) {
    const std::uint8_t* const at = pixels + 3 * i;
    out[i] = bgr ? gray_of(at[2], at[1], at[0]) : gray_of(at[0], at[1], at[2]);
  }
}

void add_rows(const std::uint8_t* row, const std::uint8_t* second, std::size_t n, bool first,
              std::uint16_t* sums) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const uint8x8_t bytes = vld1_u8(row + i);
    uint16x8_t sum = second != nullptr ? vaddl_u8(bytes, vld1_u8(second + i)) : vmovl_u8(bytes);
    if (!first) sum = vaddq_u16(sum, vld1q_u16(sums + i));
    vst1q_u16(sums + i, sum);
  }
  for (; i < n; ++i)
    sums[i] =
        static_cast<std::uint16_t>((first ? 0 : sums[i]) + row[i] + (second != nullptr ? second[i] : 0));
}

void add_pairs(const std::uint8_t* row, std::size_t n, bool first, std::uint16_t* sums) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const uint8x16_t bytes = vld1q_u8(row + i);
    vst1q_u16(sums + i / 2, first ? vpaddlq_u8(bytes) : vpadalq_u8(vld1q_u16(sums + i / 2), bytes));
  }
  for (; i + 2 <= n; i += 2)
    sums[i / 2] = static_cast<std::uint16_t>((first ? 0 : sums[i / 2]) + row[i] + row[i + 1]);
}

void add_steps(const std::uint16_t* sums, std::size_t n, std::size_t step, std::size_t count,
               std::uint16_t* out) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint16x8_t sum = vld1q_u16(sums + i);
    for (std::size_t k = 1; k < count; ++k) sum = vaddq_u16(sum, vld1q_u16(sums + i + k * step));
    vst1q_u16(out + i, sum);
  }
  for (; i < n; ++i) {
    out[i] = sums[i];
    for (std::size_t k = 1; k < count; ++k) out[i] = static_cast<std::uint16_t>(out[i] + sums[i + k * step]);
  }
}

void average(const std::uint16_t* sums, std::size_t n, float share, std::int16_t* out) {
  const auto mean = [&](uint16x4_t from) {
    const float32x4_t scaled = vmulq_n_f32(vcvtq_f32_u32(vmovl_u16(from)), share);
    return vmovn_s32(vcvtq_s32_f32(vaddq_f32(scaled, vdupq_n_f32(0.5f))));
  };
  for (std::size_t i = 0; i < n; i += 4) vst1_s16(out + i, mean(vld1_u16(sums + i)));
}

inline int16x8_t numbers(const std::uint8_t* from) { return vreinterpretq_s16_u16(vmovl_u8(vld1_u8(from))); }

inline int16x8_t numbers(const std::int16_t* from) { return vld1q_s16(from); }

// 4 pixels of one channel.
inline void store_blended(int16x8_t a, int16x8_t b, int16x8_t first, int16x8_t second, float scale,
                          float bias, float* out) {
  const int32x4_t low =
      vmlal_s16(vmull_s16(vget_low_s16(a), vget_low_s16(first)), vget_low_s16(b), vget_low_s16(second));
  const int32x4_t high = vmlal_high_s16(vmull_high_s16(a, first), b, second);
  vst1q_f32(out, vaddq_f32(vmulq_n_f32(vcvtq_f32_s32(vpaddq_s32(low, high)), scale), vdupq_n_f32(bias)));
}

template <typename T>
void blend(const T* above, const T* below, const Blend& blend) {
  const int16x8_t share = vdupq_n_s16(blend.below);
  for (std::size_t i = 0; i < 2 * blend.blocks; ++i) {  // halves of blocks
    const int16x8_t all = vld1q_s16(blend.weights + 8 * i);
    const int16x8_t second = vqrdmulhq_s16(all, share), first = vsubq_s16(all, second);
    const std::size_t x = blend.start[i / 2] + 4 * (i % 2);
    for (std::size_t c = 0; c < blend.channels; ++c)
      store_blended(numbers(above + blend.taps[c] + 8 * i), numbers(below + blend.taps[c] + 8 * i), first,
                    second, blend.scale[c], blend.bias[c], blend.out[c] + x);
  }
}

// A block of 8 pixels whose taps are there, 16 bytes for each plane.
inline void store_block(const Bytes3& a, const Bytes3& b, std::size_t block, std::size_t n,
                        const Blend& blend) {
  for (std::size_t half = 0; half < 2; ++half) {
    const int16x8_t all = vld1q_s16(blend.weights + 16 * block + 8 * half);
    const int16x8_t second = vqrdmulhq_s16(all, vdupq_n_s16(blend.below)), first = vsubq_s16(all, second);
    const auto wide = [half](uint8x16_t bytes) {
      return vreinterpretq_s16_u16(vmovl_u8(half == 0 ? vget_low_u8(bytes) : vget_high_u8(bytes)));
    };
    for (std::size_t c = 0; c < 3; ++c) {
      const std::size_t plane = blend.taps[c] / n;
      store_blended(wide(a.plane[plane]), wide(b.plane[plane]), first, second, blend.scale[c], blend.bias[c],
                    blend.out[c] + blend.start[block] + 4 * half);
    }
  }
}

template <bool kHalves>
void blend_pixels_by(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                     const Windows& windows, std::size_t n, const Blend& blend) {
  constexpr std::size_t kCount = kHalves ? 8 : 4;
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t block = 0; block < n / 16; ++block, offset += kCount, control += 64) {
    for (std::size_t k = 0; k < kCount; k += kHalves ? 2 : 3) {
      __builtin_prefetch(above + ahead + offset[k]);
      __builtin_prefetch(below + ahead + offset[k]);
    }
    store_block(take_3<kHalves>(above, offset, control), take_3<kHalves>(below, offset, control), block, n,
                blend);
  }
}

void blend_pixels(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                  const Windows& windows, std::size_t n, const Blend& blend) {
  windows.count == 8 ? blend_pixels_by<true>(above, below, ahead, windows, n, blend)
                     : blend_pixels_by<false>(above, below, ahead, windows, n, blend);
}

template <std::size_t kCount>
void blend_colour_by(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                     const Windows& windows, const std::int16_t* terms_above, const std::int16_t* terms_below,
                     std::size_t n, const Factors& m, const Blend& blend) {
  for (std::size_t block = 0; block < n / 16; ++block) {
    const std::size_t at = first_window<kCount>(block);
    const std::uint32_t* const offset = windows.offset + at;
    const std::uint8_t* const control = windows.control + 16 * at;
    __builtin_prefetch(above + ahead + offset[0]);
    __builtin_prefetch(below + ahead + offset[0]);
    store_block(coloured(take_16<kCount>(above, offset, control), terms_above + 48 * block, m),
                coloured(take_16<kCount>(below, offset, control), terms_below + 48 * block, m), block, n,
                blend);
  }
}

void blend_colour(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                  const Windows& windows, const std::int16_t* terms_above, const std::int16_t* terms_below,
                  std::size_t n, const Factors& m, const Blend& blend) {
  by_count(windows.count, [&](auto k) {
    blend_colour_by<decltype(k)::value>(above, below, ahead, windows, terms_above, terms_below, n, m, blend);
  });
}

}  // namespace

const ImageLanes kNeonLanes{8,
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
                            blend<std::uint8_t>,
                            blend_colour,
                            blend_pixels,
                            blend<std::int16_t>,
                            kLoops};

}  // namespace mmedge
#endif
