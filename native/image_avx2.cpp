#if defined(__AVX2__)
#include "image_loops.hpp"
#include "image_x86_yuv.hpp"

namespace mmedge {
namespace {

inline __m256i numbers(const std::uint8_t* from) { return _mm256_cvtepu8_epi16(load16(from)); }
inline __m256i numbers(const std::int16_t* from) { return load32(from); }

template <std::size_t kChannels, typename T>
void blend_channels(const T* above, const T* below, const Blend& blend) {
  const __m256i below_share = _mm256_set1_epi16(blend.below);
  const std::uint32_t* const start = blend.start;
  const std::int16_t* const weights = blend.weights;
  const T *a[kChannels], *b[kChannels];
  __m256 scale[kChannels], bias[kChannels];
  float* out[kChannels];
  for (std::size_t c = 0; c < kChannels; ++c) {
    a[c] = above + blend.taps[c], b[c] = below + blend.taps[c];
    scale[c] = _mm256_set1_ps(blend.scale[c]), bias[c] = _mm256_set1_ps(blend.bias[c]);
    out[c] = blend.out[c];
  }
  for (std::size_t i = 0, n = blend.blocks; i < n; ++i) {
    const __m256i all = load32(weights + 16 * i);
    const __m256i second = _mm256_mulhrs_epi16(all, below_share), first = _mm256_sub_epi16(all, second);
    const std::size_t x = start[i];
    for (std::size_t c = 0; c < kChannels; ++c) {
      const __m256i sums = _mm256_add_epi32(_mm256_madd_epi16(numbers(a[c] + 16 * i), first),
                                            _mm256_madd_epi16(numbers(b[c] + 16 * i), second));
      _mm256_storeu_ps(out[c] + x, _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale[c]), bias[c]));
    }
  }
}

template <typename T>
void blend(const T* above, const T* below, const Blend& blend) {
  blend.channels == 3 ? blend_channels<3>(above, below, blend) : blend_channels<1>(above, below, blend);
}

}  // namespace

const ImageLanes kAvx2Lanes{8,
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
                            blend_colour<1>,
                            blend_pixels<1>,
                            blend<std::int16_t>,
                            kLoops};

}  // namespace mmedge
#endif
