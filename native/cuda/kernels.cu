// What runs on the GPU. Compiled for all architectures into one file that the driver picks from
// (CMakeLists.txt).
#include "cuda/picture_pixel.hpp"

using mmedge::cuda::Picture;
using mmedge::cuda::Tap;

// Camera's picture -> float32 [channels, height, width]; a thread for each number.
extern "C" __global__ void mmedge_picture(const Picture picture, const std::uint8_t* __restrict__ from,
                                          const Tap* __restrict__ rows, const Tap* __restrict__ columns,
                                          float* __restrict__ out) {
  const std::int32_t x = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  const std::int32_t y = static_cast<std::int32_t>(blockIdx.y), c = static_cast<std::int32_t>(blockIdx.z);
  if (x < picture.columns) mmedge::cuda::write_number(picture, from, rows, columns, y, x, c, out);
}

// out[o] = sum over i of weights[o, i] * in[i], + bias[o], at least `least`. A block for each output; its
// threads' sums are added in one order, so that the same inputs give the same bits.
extern "C" __global__ void mmedge_dense(const float* __restrict__ in, const float* __restrict__ weights,
                                        const float* __restrict__ bias, std::int32_t inputs, float least,
                                        float* __restrict__ out) {
  __shared__ float of_warp[32];
  const float* const row = weights + static_cast<std::int64_t>(blockIdx.x) * inputs;
  float sum = 0.0f;
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x); i < inputs;
       i += static_cast<std::int32_t>(blockDim.x))
    sum = fmaf(row[i], in[i], sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) sum += of_warp[warp];
  sum += bias[blockIdx.x];
  out[blockIdx.x] = sum < least ? least : sum;  // NaN stays
}
