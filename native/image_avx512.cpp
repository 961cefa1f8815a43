#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include "image_loops.hpp"
#include "image_x86_yuv.hpp"

namespace mmedge {
namespace {

inline __m512i load64(const void* from) { return _mm512_loadu_si512(from); }

inline __m512i numbers(const std::uint8_t* from) { return _mm512_cvtepu8_epi16(load32(from)); }
inline __m512i numbers(const std::int16_t* from) { return load64(from); }

template <std::size_t kChannels, typename T>
void blend_channels(const T* above, const T* below, const Blend& blend) {
  const __m512i below_share = _mm512_set1_epi16(blend.below);
  const std::uint32_t* const start = blend.start;
  const std::int16_t* const weights = blend.weights;
  const T *a[kChannels], *b[kChannels];
  __m512 scale[kChannels], bias[kChannels];
  float* out[kChannels];
  for (std::size_t c = 0; c < kChannels; ++c) {
    a[c] = above + blend.taps[c], b[c] = below + blend.taps[c];
    scale[c] = _mm512_set1_ps(blend.scale[c]), bias[c] = _mm512_set1_ps(blend.bias[c]);
    out[c] = blend.out[c];
  }
  for (std::size_t i = 0, n = blend.blocks; i < n; ++i) {
    const __m512i all = load64(weights + 32 * i);
    const __m512i second = _mm512_mulhrs_epi16(all, below_share), first = _mm512_sub_epi16(all, second);
    const std::size_t x = start[i];
    for (std::size_t c = 0; c < kChannels; ++c) {
      const __m512i sums = _mm512_add_epi32(_mm512_madd_epi16(numbers(a[c] + 32 * i), first),
                                            _mm512_madd_epi16(numbers(b[c] + 32 * i), second));
      _mm512_storeu_ps(out[c] + x, _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scale[c]), bias[c]));
    }
  }
}

template <typename T>
void blend(const T* above, const T* below, const Blend& blend) {
  blend.channels == 3 ? blend_channels<3>(above, below, blend) : blend_channels<1>(above, below, blend);
}

}  // namespace

const ImageLanes kAvx512Lanes{16,
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
                              blend_colour<2>,
                              blend_pixels<2>,
                              blend<std::int16_t>,
                              kLoops};

}  // namespace mmedge
#endif
