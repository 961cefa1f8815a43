// What AVX2 and AVX-512 share: taking taps out of rows by shuffles of 16 and 32 bytes.
// Included only by files that are compiled for such instructions; everything in it is theirs alone.
#pragma once

#include <immintrin.h>

#include "image_lanes.hpp"

namespace mmedge {
namespace {

inline __m128i load16(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline __m256i load32(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store16(void* to, __m128i value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }
inline void store32(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

template <std::size_t kCount>
void take_by(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 32, offset += 2 * kCount, control += 32 * kCount) {
    const auto taps = [&](std::size_t k) {
      const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(row + offset[2 * k])),
                                                   load16(row + offset[2 * k + 1]), 1);
      return _mm256_shuffle_epi8(both, load32(control + 32 * k));
    };
    __m256i all = taps(0);
    for (std::size_t k = 1; k < kCount; ++k) all = _mm256_or_si256(all, taps(k));
    store32(out + i, all);
  }
}

void take(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  if (windows.count == 1) return take_by<1>(row, windows, n, out);
  if (windows.count == 2) return take_by<2>(row, windows, n, out);
  if (windows.count == 4) return take_by<4>(row, windows, n, out);
  take_by<8>(row, windows, n, out);
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
void take3_by(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  constexpr std::size_t kCount = kHalves ? 8 : 4;
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += kCount, control += 64) {
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

void take3(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  windows.count == 8 ? take3_by<true>(row, windows, n, out) : take3_by<false>(row, windows, n, out);
}

// Of products with 13 fractional bits, times 8: the upper and the lower half.
struct Product {
  __m256i whole, rest;
};

inline Product product(__m256i eightfold, std::int16_t factor) {
  const __m256i by = _mm256_set1_epi16(factor);
  return {_mm256_mulhi_epi16(eightfold, by), _mm256_mullo_epi16(eightfold, by)};
}

// Rounds half up: what the upper bit of the rest carries; the rest without it, less 32768, has the same bits.
inline void store_terms(const Product& p, std::int16_t* whole, std::int16_t* rest) {
  store32(whole, _mm256_add_epi16(p.whole, _mm256_srli_epi16(p.rest, 15)));
  store32(rest, p.rest);
}

void chroma(const std::uint8_t* u, const std::uint8_t* v, std::size_t n, const Factors& m,
            std::int16_t* terms) {
  const __m256i middle = _mm256_set1_epi16(128), top = _mm256_set1_epi16(static_cast<std::int16_t>(0x8000));
  for (std::size_t i = 0; i < n; i += 16) {
    const auto spread = [&](const std::uint8_t* from) {
      return _mm256_slli_epi16(_mm256_sub_epi16(_mm256_cvtepu8_epi16(load16(from + i)), middle), 3);
    };
    const __m256i cu = spread(u), cv = spread(v);
    const auto minus = [](std::int16_t factor) { return static_cast<std::int16_t>(-factor); };
    const Product first = product(cu, minus(m.green_u)), second = product(cv, minus(m.green_v));
    const __m256i rest = _mm256_add_epi16(first.rest, second.rest);
    const __m256i carry =
        _mm256_cmpgt_epi16(_mm256_xor_si256(first.rest, top), _mm256_xor_si256(rest, top));  // -1
    const Product green{_mm256_sub_epi16(_mm256_add_epi16(first.whole, second.whole), carry), rest};
    store_terms(product(cv, m.red_v), terms + i, terms + n + i);
    store_terms(green, terms + 2 * n + i, terms + 3 * n + i);
    store_terms(product(cu, m.blue_u), terms + 4 * n + i, terms + 5 * n + i);
  }
}

void colour(const std::uint8_t* luma, const std::int16_t* terms, std::size_t n, const Factors& m,
            std::uint8_t* out) {
  const __m128i black = _mm_set1_epi8(static_cast<char>(m.black));
  const __m256i scale = _mm256_set1_epi16(m.luma), low = _mm256_set1_epi16(0x7fff);
  for (std::size_t i = 0; i < n; i += 16) {
    const __m256i above = _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_subs_epu8(load16(luma + i), black)), 3);
    const __m256i whole = _mm256_mulhi_epu16(above, scale);
    const __m256i rest = _mm256_xor_si256(_mm256_mullo_epi16(above, scale), low);
    const auto sum = [&](std::size_t plane) {
      const __m256i carry = _mm256_cmpgt_epi16(load32(terms + (plane + 1) * n + i), rest);  // -1
      return _mm256_sub_epi16(_mm256_add_epi16(whole, load32(terms + plane * n + i)), carry);
    };
    const __m256i blue = sum(4), both = _mm256_permute4x64_epi64(_mm256_packus_epi16(sum(0), sum(2)), 0xd8);
    const __m256i last = _mm256_permute4x64_epi64(_mm256_packus_epi16(blue, blue), 0xd8);
    store16(out + i, _mm256_castsi256_si128(both));
    store16(out + n + i, _mm256_extracti128_si256(both, 1));
    store16(out + 2 * n + i, _mm256_castsi256_si128(last));
  }
}

}  // namespace
}  // namespace mmedge
