// What AVX2 and AVX-512 share: taking taps out of rows by shuffles of 16 and 32 bytes.
// Included only by files that are compiled for such instructions; everything in it is theirs alone.
#pragma once

#include <immintrin.h>

#include "image_lanes.hpp"
#include "image_windows.hpp"

namespace mmedge {
namespace {

inline __m128i load16(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline __m256i load32(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store16(void* to, __m128i value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }
inline void store32(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

// To the second cache: the first one has too few places for lines on their way, and loads wait for them.
inline void ask_for(const std::uint8_t* from) { __builtin_prefetch(from, 0, 2); }

// 32 taps of a row.
template <std::size_t kCount>
__m256i take_32(const std::uint8_t* row, const std::uint32_t* offset, const std::uint8_t* control) {
  const auto taps = [&](std::size_t k) {
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(row + offset[2 * k])),
                                                 load16(row + offset[2 * k + 1]), 1);
    return _mm256_shuffle_epi8(both, load32(control + 32 * k));
  };
  __m256i all = taps(0);
  for (std::size_t k = 1; k < kCount; ++k) all = _mm256_or_si256(all, taps(k));
  return all;
}

template <std::size_t kCount>
void take_by(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 32, offset += 2 * kCount, control += 32 * kCount)
    store32(out + i, take_32<kCount>(row, offset, control));
}

void take(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  by_count(windows.count, [&](auto k) { take_by<decltype(k)::value>(row, windows, n, out); });
}

// The bytes of two pixels in each half.
template <bool kHalves>
__m256i two_windows(const std::uint8_t* row, const std::uint32_t* offset) {
  if constexpr (kHalves) {
    const auto half = [row](std::uint32_t first, std::uint32_t second) {
      const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + first));
      return _mm_castps_si128(
          _mm_loadh_pi(_mm_castsi128_ps(low), reinterpret_cast<const __m64*>(row + second)));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(half(offset[0], offset[1])),
                                   half(offset[2], offset[3]), 1);
  } else {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(row + offset[0])), load16(row + offset[1]),
                                   1);
  }
}

template <bool kHalves>
void take3_by(const std::uint8_t* row, const std::uint8_t* ahead, const Windows& windows, std::size_t n,
              std::uint8_t* out) {
  constexpr std::size_t kCount = kHalves ? 8 : 4;
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += kCount, control += 64) {
    for (std::size_t k = 0; k < kCount; k += kHalves ? 2 : 4) ask_for(ahead + offset[k]);
    // Each dword: left and right of two pixels, of one channel.
    const __m256i even = _mm256_shuffle_epi8(two_windows<kHalves>(row, offset), load32(control));
    const __m256i odd =
        _mm256_shuffle_epi8(two_windows<kHalves>(row, offset + kCount / 2), load32(control + 32));
    const __m256i both = _mm256_permute4x64_epi64(_mm256_unpacklo_epi32(even, odd), 0xd8);
    const __m256i last = _mm256_permute4x64_epi64(_mm256_unpackhi_epi32(even, odd), 0xd8);
    store16(out + i, _mm256_castsi256_si128(both));
    store16(out + n + i, _mm256_extracti128_si256(both, 1));
    store16(out + 2 * n + i, _mm256_castsi256_si128(last));
  }
}

void take3(const std::uint8_t* row, const std::uint8_t* ahead, const Windows& windows, std::size_t n,
           std::uint8_t* out) {
  windows.count == 8 ? take3_by<true>(row, ahead, windows, n, out)
                     : take3_by<false>(row, ahead, windows, n, out);
}

void expand(const std::uint8_t* luma, std::size_t n, std::uint8_t* out) {
  const __m256i black = _mm256_set1_epi8(16), share = _mm256_set1_epi16(kExpandShare);
  const __m256i zero = _mm256_setzero_si256();
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i above = _mm256_subs_epu8(load32(luma + i), black);
    const __m256i low = _mm256_mulhrs_epi16(_mm256_unpacklo_epi8(above, zero), share);
    const __m256i high = _mm256_mulhrs_epi16(_mm256_unpackhi_epi8(above, zero), share);
    store32(out + i, _mm256_adds_epu8(above, _mm256_packus_epi16(low, high)));
  }
  for (; i < n; ++i) out[i] = expanded(luma[i]);
}

void mix(const std::uint8_t* pixels, std::size_t n, bool bgr, std::uint8_t* out) {
  const int first = bgr ? kGrayBlue : kGrayRed, third = bgr ? kGrayRed : kGrayBlue;
  // Numbers of 16 bits: first and second byte of each pixel, and third byte and one.
  const __m256i pairs =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1));
  const __m256i rest =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(2, -1, -1, -1, 5, -1, -1, -1, 8, -1, -1, -1, 11, -1, -1, -1));
  const __m256i ones = _mm256_set1_epi32(1 << 16), half = _mm256_set1_epi32(third | 8192 << 16);
  const __m256i shares = _mm256_set1_epi32(first | kGrayGreen << 16);
  std::size_t i = 0;
  for (; 3 * i + 28 <= 3 * n; i += 8) {
    const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(pixels + 3 * i)),
                                                  load16(pixels + 3 * i + 12), 1);
    const __m256i two = _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, pairs), shares);
    const __m256i one = _mm256_madd_epi16(_mm256_or_si256(_mm256_shuffle_epi8(bytes, rest), ones), half);
    const __m256i gray = _mm256_srli_epi32(_mm256_add_epi32(two, one), 14);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(gray), _mm256_extracti128_si256(gray, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm_packus_epi16(words, words));
  }
  for (; i < n; ++i) {
    const std::uint8_t* const at = pixels + 3 * i;
    out[i] = bgr ? gray_of(at[2], at[1], at[0]) : gray_of(at[0], at[1], at[2]);
  }
}

template <bool kTwo>
void add_rows_by(const std::uint8_t* row, const std::uint8_t* second, std::size_t n, bool first,
                 std::uint16_t* sums) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    __m256i sum = _mm256_cvtepu8_epi16(load16(row + i));
    if (kTwo) sum = _mm256_add_epi16(sum, _mm256_cvtepu8_epi16(load16(second + i)));
    store32(sums + i, first ? sum : _mm256_add_epi16(sum, load32(sums + i)));
  }
  for (; i < n; ++i)
    sums[i] = static_cast<std::uint16_t>((first ? 0 : sums[i]) + row[i] + (kTwo ? second[i] : 0));
}

void add_rows(const std::uint8_t* row, const std::uint8_t* second, std::size_t n, bool first,
              std::uint16_t* sums) {
  second != nullptr ? add_rows_by<true>(row, second, n, first, sums)
                    : add_rows_by<false>(row, second, n, first, sums);
}

void add_pairs(const std::uint8_t* row, std::size_t n, bool first, std::uint16_t* sums) {
  const __m256i ones = _mm256_set1_epi8(1);
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m256i pairs = _mm256_maddubs_epi16(load32(row + i), ones);
    store32(sums + i / 2, first ? pairs : _mm256_add_epi16(pairs, load32(sums + i / 2)));
  }
  for (; i + 2 <= n; i += 2)
    sums[i / 2] = static_cast<std::uint16_t>((first ? 0 : sums[i / 2]) + row[i] + row[i + 1]);
}

void add_steps(const std::uint16_t* sums, std::size_t n, std::size_t step, std::size_t count,
               std::uint16_t* out) {
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    __m256i sum = load32(sums + i);
    for (std::size_t k = 1; k < count; ++k) sum = _mm256_add_epi16(sum, load32(sums + i + k * step));
    store32(out + i, sum);
  }
  for (; i < n; ++i) {
    out[i] = sums[i];
    for (std::size_t k = 1; k < count; ++k) out[i] = static_cast<std::uint16_t>(out[i] + sums[i + k * step]);
  }
}

void average(const std::uint16_t* sums, std::size_t n, float share, std::int16_t* out) {
  const __m256 by = _mm256_set1_ps(share), half = _mm256_set1_ps(0.5f);
  const auto mean = [&](const std::uint16_t* from) {
    const __m256 sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(load16(from)));
    return _mm256_cvttps_epi32(_mm256_add_ps(_mm256_mul_ps(sum, by), half));
  };
  for (std::size_t i = 0; i < n; i += 16)
    store32(out + i, _mm256_permute4x64_epi64(_mm256_packs_epi32(mean(sums + i), mean(sums + i + 8)), 0xd8));
}

// Where the planes of the output begin, in the order in which pixels or terms have their channels.
struct Planes {
  float* out[3];
  __m256 factor[3], bias[3];

  Planes(const Blend& blend, std::size_t n) {
    for (std::size_t c = 0; c < 3; ++c) {
      std::size_t at = 0;
      while (blend.taps[at] != c * n) ++at;
      out[c] = blend.out[at];
      factor[c] = _mm256_set1_ps(blend.scale[at]), bias[c] = _mm256_set1_ps(blend.bias[at]);
    }
  }
  void store(std::size_t c, std::size_t x, __m256i sums) const {
    _mm256_storeu_ps(out[c] + x, _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), factor[c]), bias[c]));
  }
};

// kUnits: how many times 8 pixels a block has.
template <std::size_t kUnits, bool kHalves>
void blend_pixels_by(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                     const Windows& windows, std::size_t n, const Blend& blend) {
  constexpr std::size_t kCount = kHalves ? 8 : 4;
  const __m256i below_share = _mm256_set1_epi16(blend.below);
  const Planes planes(blend, n);
  const std::uint32_t *const start = blend.start, *offset = windows.offset;
  const std::uint8_t* words = windows.words;
  for (std::size_t unit = 0, units = n / 16; unit < units; ++unit, offset += kCount, words += 128) {
    for (std::size_t k = 0; k < kCount; k += kHalves ? 2 : 3) {
      ask_for(above + ahead + offset[k]);
      ask_for(below + ahead + offset[k]);
    }
    // Pixels 0, 1, 4, 5 and 2, 3, 6, 7: of each two of the first two channels, then of the third of all.
    const auto sums_of = [&](__m256i taps_above, __m256i taps_below, __m256i all) {
      const __m256i second = _mm256_mulhrs_epi16(all, below_share), first = _mm256_sub_epi16(all, second);
      return _mm256_add_epi32(_mm256_madd_epi16(taps_above, first), _mm256_madd_epi16(taps_below, second));
    };
    const __m256i all = load32(blend.weights + 16 * unit);
    const __m256i a = two_windows<kHalves>(above, offset), b = two_windows<kHalves>(below, offset);
    const __m256i c = two_windows<kHalves>(above, offset + kCount / 2),
                  d = two_windows<kHalves>(below, offset + kCount / 2);
    const __m256i even = sums_of(_mm256_shuffle_epi8(a, load32(words)), _mm256_shuffle_epi8(b, load32(words)),
                                 _mm256_unpacklo_epi64(all, all));
    const __m256i odd = sums_of(_mm256_shuffle_epi8(c, load32(words + 64)),
                                _mm256_shuffle_epi8(d, load32(words + 64)), _mm256_unpackhi_epi64(all, all));
    const __m256i last_even = load32(words + 32), last_odd = load32(words + 96);
    const __m256i last =
        sums_of(_mm256_or_si256(_mm256_shuffle_epi8(a, last_even), _mm256_shuffle_epi8(c, last_odd)),
                _mm256_or_si256(_mm256_shuffle_epi8(b, last_even), _mm256_shuffle_epi8(d, last_odd)), all);
    const std::size_t x = start[unit / kUnits] + unit % kUnits * 8;
    planes.store(0, x, _mm256_unpacklo_epi64(even, odd));
    planes.store(1, x, _mm256_unpackhi_epi64(even, odd));
    planes.store(2, x, last);
  }
}

template <std::size_t kUnits>
void blend_pixels(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                  const Windows& windows, std::size_t n, const Blend& blend) {
  windows.count == 8 ? blend_pixels_by<kUnits, true>(above, below, ahead, windows, n, blend)
                     : blend_pixels_by<kUnits, false>(above, below, ahead, windows, n, blend);
}

}  // namespace
}  // namespace mmedge
