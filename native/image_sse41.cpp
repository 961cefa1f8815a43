// For processors without AVX2, as many small boards have.
#if defined(__SSE4_1__) && !defined(__AVX__)
#include <smmintrin.h>

#include "image_loops.hpp"
#include "image_windows.hpp"

namespace mmedge {
namespace {

inline __m128i load16(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline __m128i load8(const void* from) { return _mm_loadl_epi64(static_cast<const __m128i*>(from)); }
inline void store16(void* to, __m128i value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }

// 16 taps of a row, of each second window.
template <std::size_t kCount>
__m128i take_16(const std::uint8_t* row, const std::uint32_t* offset, const std::uint8_t* control) {
  const auto taps = [&](std::size_t k) {
    return _mm_shuffle_epi8(load16(row + offset[2 * k]), load16(control + 32 * k));
  };
  __m128i all = taps(0);
  for (std::size_t k = 1; k < kCount; ++k) all = _mm_or_si128(all, taps(k));
  return all;
}

template <std::size_t kCount>
void take_by(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 32, offset += 2 * kCount, control += 32 * kCount) {
    store16(out + i, take_16<kCount>(row, offset, control));
    store16(out + i + 16, take_16<kCount>(row, offset + 1, control + 16));
  }
}

void take(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  by_count(windows.count, [&](auto k) { take_by<decltype(k)::value>(row, windows, n, out); });
}

template <bool kHalves>
void take3_by(const std::uint8_t* row, const Windows& windows, std::size_t n, std::uint8_t* out) {
  constexpr std::size_t kStep = kHalves ? 2 : 1;
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += 4 * kStep, control += 64) {
    // Each 32 bits: left and right of two pixels, of one channel.
    const auto pixels = [&](std::size_t k) {
      const __m128i bytes = kHalves ? _mm_unpacklo_epi64(load8(row + offset[k * kStep]),
                                                         load8(row + offset[k * kStep + kStep - 1]))
                                    : load16(row + offset[k]);
      return _mm_shuffle_epi8(bytes, load16(control + 16 * k));
    };
    // In the order of the halves of AVX2's registers: pixels 0-1, 4-5, 2-3, 6-7.
    const __m128i first = pixels(0), third = pixels(1), second = pixels(2), fourth = pixels(3);
    const __m128i low = _mm_unpacklo_epi32(first, second), high = _mm_unpacklo_epi32(third, fourth);
    store16(out + i, _mm_unpacklo_epi64(low, high));
    store16(out + n + i, _mm_unpackhi_epi64(low, high));
    store16(out + 2 * n + i,
            _mm_unpacklo_epi64(_mm_unpackhi_epi32(first, second), _mm_unpackhi_epi32(third, fourth)));
  }
}

void take3(const std::uint8_t* row, const std::uint8_t*, const Windows& windows, std::size_t n,
           std::uint8_t* out) {
  windows.count == 8 ? take3_by<true>(row, windows, n, out) : take3_by<false>(row, windows, n, out);
}

// 8 of U and of V less 128, each in the upper half of its number.
inline void store_colours(__m128i cu, __m128i cv, const Factors& m, std::int16_t* terms) {
  const __m128i half = _mm_set1_epi16(kHalfLevel);
  const auto term = [](__m128i chroma, int factor) {
    return _mm_mulhrs_epi16(chroma, _mm_set1_epi16(static_cast<std::int16_t>(factor)));
  };
  store16(terms, _mm_add_epi16(term(cv, m.red_v), half));
  store16(terms + 16, _mm_add_epi16(_mm_add_epi16(term(cu, -m.green_u), term(cv, -m.green_v)), half));
  store16(terms + 32, _mm_add_epi16(term(cu, m.blue_u), half));
}

// 16 of each, as bytes.
inline void store_bytes(__m128i u, __m128i v, const Factors& m, std::int16_t* terms) {
  const __m128i middle = _mm_set1_epi8(static_cast<char>(0x80)), zero = _mm_setzero_si128();
  const __m128i cu = _mm_xor_si128(u, middle), cv = _mm_xor_si128(v, middle);
  store_colours(_mm_unpacklo_epi8(zero, cu), _mm_unpacklo_epi8(zero, cv), m, terms);
  store_colours(_mm_unpackhi_epi8(zero, cu), _mm_unpackhi_epi8(zero, cv), m, terms + 8);
}

void chroma(const std::uint8_t* u, const std::uint8_t* v, std::size_t n, const Factors& m,
            std::int16_t* terms) {
  for (std::size_t i = 0; i < n; i += 16) store_bytes(load16(u + i), load16(v + i), m, terms + 3 * i);
}

template <std::size_t kCount>
void take_chroma_by(const std::uint8_t* u, const std::uint8_t* v, const Windows& windows, std::size_t n,
                    const Factors& m, std::int16_t* terms) {
  for (std::size_t unit = 0; unit < n / 16; ++unit) {
    const std::size_t at = first_window<kCount>(unit);
    const std::uint32_t* const offset = windows.offset + at;
    const std::uint8_t* const control = windows.control + 16 * at;
    store_bytes(take_16<kCount>(u, offset, control), take_16<kCount>(v, offset, control), m,
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
  const __m128i middle = _mm_set1_epi8(static_cast<char>(0x80)),
                high = _mm_set1_epi16(static_cast<std::int16_t>(0xff00));
  const std::uint32_t* offset = windows.offset;
  const std::uint8_t* control = windows.control;
  for (std::size_t i = 0; i < n; i += 16, offset += 2 * kCount, control += 32 * kCount) {
    for (std::size_t k = 0; k < 2; ++k) {
      const __m128i both = _mm_xor_si128(take_16<kCount>(uv, offset + k, control + 16 * k), middle);
      store_colours(_mm_slli_epi16(both, 8), _mm_and_si128(both, high), m, terms + 3 * i + 8 * k);
    }
  }
}

void take_pairs(const std::uint8_t* uv, const Windows& windows, std::size_t n, const Factors& m,
                std::int16_t* terms) {
  by_count(windows.count, [&](auto k) { take_pairs_by<decltype(k)::value>(uv, windows, n, m, terms); });
}

void colour(const std::uint8_t* luma, const std::int16_t* terms, std::size_t n, const Factors& m,
            std::uint8_t* out) {
  const __m128i black = _mm_set1_epi8(static_cast<char>(m.black)), factor = _mm_set1_epi16(m.luma),
                zero = _mm_setzero_si128();
  const auto gray = [factor](__m128i above) { return _mm_mulhrs_epi16(_mm_slli_epi16(above, 7), factor); };
  // Sums beyond 16 bits are beyond white.
  const auto with_term = [](__m128i sum, const std::int16_t* term) {
    return _mm_srai_epi16(_mm_adds_epi16(sum, load16(term)), 6);
  };
  for (std::size_t i = 0; i < n; i += 16) {
    const __m128i above = _mm_subs_epu8(load16(luma + i), black);
    const __m128i low = gray(_mm_unpacklo_epi8(above, zero)), high = gray(_mm_unpackhi_epi8(above, zero));
    for (std::size_t c = 0; c < 3; ++c) {
      const std::int16_t* const term = terms + 3 * i + 16 * c;
      store16(out + c * n + i, _mm_packus_epi16(with_term(low, term), with_term(high, term + 8)));
    }
  }
}

void expand(const std::uint8_t* luma, std::size_t n, std::uint8_t* out) {
  const __m128i black = _mm_set1_epi8(16), share = _mm_set1_epi16(kExpandShare), zero = _mm_setzero_si128();
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m128i above = _mm_subs_epu8(load16(luma + i), black);
    const __m128i low = _mm_mulhrs_epi16(_mm_unpacklo_epi8(above, zero), share);
    const __m128i high = _mm_mulhrs_epi16(_mm_unpackhi_epi8(above, zero), share);
    store16(out + i, _mm_adds_epu8(above, _mm_packus_epi16(low, high)));
  }
  for (; i < n; ++i) out[i] = expanded(luma[i]);
}

void mix(const std::uint8_t* pixels, std::size_t n, bool bgr, std::uint8_t* out) {
  const int first = bgr ? kGrayBlue : kGrayRed, third = bgr ? kGrayRed : kGrayBlue;
  // Numbers of 16 bits: first and second byte of each pixel, and third byte and one.
  const __m128i pairs = _mm_setr_epi8(0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1),
                rest = _mm_setr_epi8(2, -1, -1, -1, 5, -1, -1, -1, 8, -1, -1, -1, 11, -1, -1, -1);
  const __m128i ones = _mm_set1_epi32(1 << 16), half = _mm_set1_epi32(third | 8192 << 16),
                shares = _mm_set1_epi32(first | kGrayGreen << 16);
  std::size_t i = 0;
  for (; 3 * i + 16 <= 3 * n; i += 4) {
    const __m128i bytes = load16(pixels + 3 * i);
    const __m128i two = _mm_madd_epi16(_mm_shuffle_epi8(bytes, pairs), shares);
    const __m128i one = _mm_madd_epi16(_mm_or_si128(_mm_shuffle_epi8(bytes, rest), ones), half);
    const __m128i words = _mm_srli_epi32(_mm_add_epi32(two, one), 14);
    const int four = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(words, words), words));
    __builtin_memcpy(out + i, &four, sizeof four);
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
    __m128i sum = _mm_cvtepu8_epi16(load8(row + i));
    if (second != nullptr) sum = _mm_add_epi16(sum, _mm_cvtepu8_epi16(load8(second + i)));
    store16(sums + i, first ? sum : _mm_add_epi16(sum, load16(sums + i)));
  }
  for (; i < n; ++i)
    sums[i] =
        static_cast<std::uint16_t>((first ? 0 : sums[i]) + row[i] + (second != nullptr ? second[i] : 0));
}

void add_pairs(const std::uint8_t* row, std::size_t n, bool first, std::uint16_t* sums) {
  const __m128i ones = _mm_set1_epi8(1);
  std::size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m128i pairs = _mm_maddubs_epi16(load16(row + i), ones);
    store16(sums + i / 2, first ? pairs : _mm_add_epi16(pairs, load16(sums + i / 2)));
  }
  for (; i + 2 <= n; i += 2)
    sums[i / 2] = static_cast<std::uint16_t>((first ? 0 : sums[i / 2]) + row[i] + row[i + 1]);
}

void add_steps(const std::uint16_t* sums, std::size_t n, std::size_t step, std::size_t count,
               std::uint16_t* out) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m128i sum = load16(sums + i);
    for (std::size_t k = 1; k < count; ++k) sum = _mm_add_epi16(sum, load16(sums + i + k * step));
    store16(out + i, sum);
  }
  for (; i < n; ++i) {
    out[i] = sums[i];
    for (std::size_t k = 1; k < count; ++k) out[i] = static_cast<std::uint16_t>(out[i] + sums[i + k * step]);
  }
}

void average(const std::uint16_t* sums, std::size_t n, float share, std::int16_t* out) {
  const __m128 by = _mm_set1_ps(share), half = _mm_set1_ps(0.5f);
  const auto mean = [&](const std::uint16_t* from) {
    const __m128 sum = _mm_cvtepi32_ps(_mm_cvtepu16_epi32(load8(from)));
    return _mm_cvttps_epi32(_mm_add_ps(_mm_mul_ps(sum, by), half));
  };
  for (std::size_t i = 0; i < n; i += 8)
    store16(out + i, _mm_packs_epi32(mean(sums + i), mean(sums + i + 4)));
}

inline __m128i numbers(const std::uint8_t* from) { return _mm_cvtepu8_epi16(load8(from)); }
inline __m128i numbers(const std::int16_t* from) { return load16(from); }

template <typename T>
void blend(const T* above, const T* below, const Blend& blend) {
  const Blend by = blend;
  const __m128i share = _mm_set1_epi16(by.below);
  for (std::size_t i = 0; i < 2 * by.blocks; ++i) {  // halves of blocks
    const __m128i all = load16(by.weights + 8 * i);
    const __m128i second = _mm_mulhrs_epi16(all, share), first = _mm_sub_epi16(all, second);
    const std::size_t x = by.start[i / 2] + 4 * (i % 2);
    for (std::size_t c = 0; c < by.channels; ++c) {
      const __m128i sums = _mm_add_epi32(_mm_madd_epi16(numbers(above + by.taps[c] + 8 * i), first),
                                         _mm_madd_epi16(numbers(below + by.taps[c] + 8 * i), second));
      const __m128 scaled = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(by.scale[c]));
      _mm_storeu_ps(by.out[c] + x, _mm_add_ps(scaled, _mm_set1_ps(by.bias[c])));
    }
  }
}

}  // namespace

const ImageLanes kSse41Lanes{8,
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
                             nullptr,
                             nullptr,
                             blend<std::int16_t>,
                             kLoops};

}  // namespace mmedge
#endif
