#if defined(__AVX2__)
#include "image_x86.hpp"

namespace mmedge {
namespace {

// Products of pairs to floats: the columns of 8 pixels.
inline void columns(__m256i rows, const Blend& blend, std::size_t block, float* out) {
  const __m256i sums = _mm256_madd_epi16(rows, load32(blend.weights + 16 * block));
  const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(blend.scale));
  _mm256_storeu_ps(out + blend.start[block], _mm256_add_ps(scaled, _mm256_set1_ps(blend.bias)));
}

void blend(const std::uint8_t* above, const std::uint8_t* below, std::int16_t weight, const Blend& blend,
           float* out) {
  const __m256i by = _mm256_set1_epi16(weight);
  for (std::size_t i = 0; i < blend.blocks; ++i) {
    const __m256i a = _mm256_cvtepu8_epi16(load16(above + 16 * i));
    const __m256i b = _mm256_cvtepu8_epi16(load16(below + 16 * i));
    const __m256i between = _mm256_mulhrs_epi16(_mm256_slli_epi16(_mm256_sub_epi16(b, a), 7), by);
    columns(_mm256_add_epi16(_mm256_slli_epi16(a, 7), between), blend, i, out);
  }
}

void blend_means(const std::int16_t* above, const std::int16_t* below, std::int16_t weight,
                 const Blend& blend, float* out) {
  const __m256i by = _mm256_set1_epi16(weight);
  for (std::size_t i = 0; i < blend.blocks; ++i) {
    const __m256i a = load32(above + 16 * i), b = load32(below + 16 * i);
    columns(_mm256_add_epi16(a, _mm256_mulhrs_epi16(_mm256_sub_epi16(b, a), by)), blend, i, out);
  }
}

}  // namespace

const ImageLanes kAvx2Lanes{8, take, take3, chroma, colour, blend, blend_means};

}  // namespace mmedge
#endif
