#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include "image_x86.hpp"

namespace mmedge {
namespace {

// Products of pairs to floats: the columns of 16 pixels.
inline void columns(__m512i rows, const Blend& blend, std::size_t block, float* out) {
  const __m512i sums = _mm512_madd_epi16(rows, _mm512_loadu_si512(blend.weights + 32 * block));
  const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(blend.scale));
  _mm512_storeu_ps(out + blend.start[block], _mm512_add_ps(scaled, _mm512_set1_ps(blend.bias)));
}

void blend(const std::uint8_t* above, const std::uint8_t* below, std::int16_t weight, const Blend& blend,
           float* out) {
  const __m512i by = _mm512_set1_epi16(weight);
  for (std::size_t i = 0; i < blend.blocks; ++i) {
    const __m512i a = _mm512_cvtepu8_epi16(load32(above + 32 * i));
    const __m512i b = _mm512_cvtepu8_epi16(load32(below + 32 * i));
    const __m512i between = _mm512_mulhrs_epi16(_mm512_slli_epi16(_mm512_sub_epi16(b, a), 7), by);
    columns(_mm512_add_epi16(_mm512_slli_epi16(a, 7), between), blend, i, out);
  }
}

void blend_means(const std::int16_t* above, const std::int16_t* below, std::int16_t weight,
                 const Blend& blend, float* out) {
  const __m512i by = _mm512_set1_epi16(weight);
  for (std::size_t i = 0; i < blend.blocks; ++i) {
    const __m512i a = _mm512_loadu_si512(above + 32 * i), b = _mm512_loadu_si512(below + 32 * i);
    columns(_mm512_add_epi16(a, _mm512_mulhrs_epi16(_mm512_sub_epi16(b, a), by)), blend, i, out);
  }
}

}  // namespace

const ImageLanes kAvx512Lanes{16, take, take3, chroma, colour, blend, blend_means};

}  // namespace mmedge
#endif
