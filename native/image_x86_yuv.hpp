// What AVX2 and AVX-512 share of luma and chroma: to colours, and taps of them to the output.
// Included only by files that are compiled for such instructions; everything in it is theirs alone.
#pragma once

#include "image_x86.hpp"

namespace mmedge {
namespace {

// U and V less 128, each in the upper half of its number.
inline void store_colours(__m256i cu, __m256i cv, const Factors& m, std::int16_t* terms) {
  const __m256i half = _mm256_set1_epi16(kHalfLevel);
  const auto term = [](__m256i chroma, int factor) {
    return _mm256_mulhrs_epi16(chroma, _mm256_set1_epi16(static_cast<std::int16_t>(factor)));
  };
  store32(terms, _mm256_add_epi16(term(cv, m.red_v), half));
  store32(terms + 16, _mm256_add_epi16(_mm256_add_epi16(term(cu, -m.green_u), term(cv, -m.green_v)), half));
  store32(terms + 32, _mm256_add_epi16(term(cu, m.blue_u), half));
}

void chroma(const std::uint8_t* u, const std::uint8_t* v, std::size_t n, const Factors& m,
            std::int16_t* terms) {
  const __m128i middle = _mm_set1_epi8(static_cast<char>(0x80));
  for (std::size_t i = 0; i < n; i += 16) {
    const auto spread = [&](const std::uint8_t* from) {
      return _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_xor_si128(load16(from + i), middle)), 8);
    };
    store_colours(spread(u), spread(v), m, terms + 3 * i);
  }
}

// The same 16 taps of two rows.
template <std::size_t kCount>
__m256i take_both(const std::uint8_t* one, const std::uint8_t* other, const std::uint32_t* offset,
                  const std::uint8_t* control) {
  const auto taps = [&](std::size_t k) {
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(one + offset[2 * k])),
                                                 load16(other + offset[2 * k]), 1);
    return _mm256_shuffle_epi8(both, _mm256_broadcastsi128_si256(load16(control + 32 * k)));
  };
  __m256i both = taps(0);
  for (std::size_t k = 1; k < kCount; ++k) both = _mm256_or_si256(both, taps(k));
  return both;
}

template <std::size_t kCount>
void take_chroma_by(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                    const Factors& m, std::int16_t* terms) {
  const __m256i middle = _mm256_set1_epi8(static_cast<char>(0x80));
  for (std::size_t unit = 0; unit < n / 16; ++unit) {
    const std::size_t at = first_window<kCount>(unit);
    const __m256i both =
        _mm256_xor_si256(take_both<kCount>(u, v, windows.offset + at, windows.control + 16 * at), middle);
    const auto spread = [](__m128i bytes) { return _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 8); };
    store_colours(spread(_mm256_castsi256_si128(both)), spread(_mm256_extracti128_si256(both, 1)), m,
                  terms + 48 * unit);
  }
}

void take_chroma(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                 const Factors& m, std::int16_t* terms) {
  by_count(windows.count, [&](auto k) { take_chroma_by<decltype(k)::value>(u, v, windows, n, m, terms); });
}

template <std::size_t kCount>
void take_pairs_by(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& m,
                   std::int16_t* terms) {
  const __m256i middle = _mm256_set1_epi8(static_cast<char>(0x80)),
                high = _mm256_set1_epi16(static_cast<std::int16_t>(0xff00));
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += 2 * kCount, control += 32 * kCount) {
    const __m256i both = _mm256_xor_si256(take_32<kCount>(uv, offset, control), middle);
    store_colours(_mm256_slli_epi16(both, 8), _mm256_and_si256(both, high), m, terms + 3 * i);
  }
}

void take_pairs(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& m,
                std::int16_t* terms) {
  by_count(windows.count, [&](auto k) { take_pairs_by<decltype(k)::value>(uv, windows, n, m, terms); });
}

// 16 taps of a row of luma above black.
inline __m256i luma_of(__m128i above, __m256i factor) {
  return _mm256_mulhrs_epi16(_mm256_slli_epi16(_mm256_cvtepu8_epi16(above), 7), factor);
}

// Sums beyond 16 bits are beyond white.
inline __m256i with_term(__m256i luma, const std::int16_t* term) {
  return _mm256_srai_epi16(_mm256_adds_epi16(luma, load32(term)), 6);
}

void colour(const std::uint8_t* luma, const std::int16_t* terms, std::size_t n, const Factors& m,
            std::uint8_t* out) {
  const __m128i black = _mm_set1_epi8(static_cast<char>(m.black));
  const __m256i factor = _mm256_set1_epi16(m.luma);
  for (std::size_t i = 0; i < n; i += 16) {
    const __m256i gray = luma_of(_mm_subs_epu8(load16(luma + i), black), factor);
    const std::int16_t* const term = terms + 3 * i;
    const __m256i red = with_term(gray, term), green = with_term(gray, term + 16);
    const __m256i blue = with_term(gray, term + 32);
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi16(red, green), 0xd8);
    const __m256i last = _mm256_permute4x64_epi64(_mm256_packus_epi16(blue, blue), 0xd8);
    store16(out + i, _mm256_castsi256_si128(both));
    store16(out + n + i, _mm256_extracti128_si256(both, 1));
    store16(out + 2 * n + i, _mm256_castsi256_si128(last));
  }
}

template <std::size_t kUnits, std::size_t kCount>
void blend_colour_by(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                     const Windows& windows, const std::int16_t* terms_above, const std::int16_t* terms_below,
                     std::size_t n, const Factors& m, const Blend& blend) {
  const __m256i below_share = _mm256_set1_epi16(blend.below), zero = _mm256_setzero_si256();
  const __m256i black = _mm256_set1_epi8(static_cast<char>(m.black)), factor = _mm256_set1_epi16(m.luma);
  const Planes planes(blend, n);
  const std::int16_t* const weights = blend.weights;
  const std::uint32_t* const start = blend.start;
  for (std::size_t unit = 0, units = n / 16; unit < units; ++unit) {
    const std::size_t window = first_window<kCount>(unit);
    const std::uint32_t* const offset = windows.offset + window;
    // To the first cache: what is computed here takes longer than lines need to come.
    __builtin_prefetch(above + ahead + offset[0]);
    __builtin_prefetch(below + ahead + offset[0]);
    const __m256i both =
        _mm256_subs_epu8(take_both<kCount>(above, below, offset, windows.control + 16 * window), black);
    const __m256i a = luma_of(_mm256_castsi256_si128(both), factor);
    const __m256i b = luma_of(_mm256_extracti128_si256(both, 1), factor);
    const __m256i all = load32(weights + 16 * unit);
    const __m256i second = _mm256_mulhrs_epi16(all, below_share), first = _mm256_sub_epi16(all, second);
    const std::size_t x = start[unit / kUnits] + unit % kUnits * 8;
    for (std::size_t c = 0; c < 3; ++c) {
      const std::size_t at = 48 * unit + 16 * c;
      const __m256i clamped =
          _mm256_packus_epi16(with_term(a, terms_above + at), with_term(b, terms_below + at));
      const __m256i sums = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpacklo_epi8(clamped, zero), first),
                                            _mm256_madd_epi16(_mm256_unpackhi_epi8(clamped, zero), second));
      planes.store(c, x, sums);
    }
  }
}

template <std::size_t kUnits>
void blend_colour(const std::uint8_t* above, const std::uint8_t* below, std::size_t ahead,
                  const Windows& windows, const std::int16_t* terms_above, const std::int16_t* terms_below,
                  std::size_t n, const Factors& m, const Blend& blend) {
  by_count(windows.count, [&](auto k) {
    blend_colour_by<kUnits, decltype(k)::value>(above, below, ahead, windows, terms_above, terms_below, n, m,
                                                blend);
  });
}

}  // namespace
}  // namespace mmedge
