#include "block_rows.hpp"

#include <algorithm>
#include <cstring>

namespace mmedge {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

template <std::size_t kBlock>
void sum_blocks(const std::uint16_t* __restrict sums, std::size_t width, std::size_t block,
                float* __restrict out) {
  const std::size_t side = kBlock != 0 ? kBlock : block;
  for (std::size_t x = 0; x < width; ++x) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < side; ++i) sum += sums[x * side + i];
    out[x] = static_cast<float>(static_cast<std::int32_t>(sum));
  }
}

void sum_blocks(const std::uint16_t* sums, std::size_t width, std::size_t block, float* out) {
  switch (block) {
    case 1:
      return sum_blocks<1>(sums, width, block, out);
    case 2:
      return sum_blocks<2>(sums, width, block, out);
    case 4:
      return sum_blocks<4>(sums, width, block, out);
    default:
      return sum_blocks<0>(sums, width, block, out);
  }
}

// The same of interleaved pixels, to one plane for each byte of a pixel; reads one value beyond the last
// pixel.
template <std::size_t kBlock>
void sum_pixels(const std::uint16_t* __restrict sums, std::size_t width, std::size_t block,
                float* __restrict first, float* __restrict second, float* __restrict third) {
  using Values = std::uint16_t __attribute__((vector_size(8)));
  using Sums = std::int32_t __attribute__((vector_size(16)));
  const std::size_t side = kBlock != 0 ? kBlock : block;
  for (std::size_t x = 0; x < width; ++x) {
    Sums sum{};
    for (std::size_t i = 0; i < side; ++i) {
      Values values;
      std::memcpy(&values, sums + 3 * (x * side + i), sizeof values);
      sum += __builtin_convertvector(values, Sums);
    }
    first[x] = static_cast<float>(sum[0]);
    second[x] = static_cast<float>(sum[1]);
    third[x] = static_cast<float>(sum[2]);
  }
}

void sum_pixels(const std::uint16_t* sums, std::size_t width, std::size_t block,
                const std::array<float*, 3>& out) {
  switch (block) {
    case 2:
      return sum_pixels<2>(sums, width, block, out[0], out[1], out[2]);
    case 3:
      return sum_pixels<3>(sums, width, block, out[0], out[1], out[2]);
    case 4:
      return sum_pixels<4>(sums, width, block, out[0], out[1], out[2]);
    default:
      return sum_pixels<0>(sums, width, block, out[0], out[1], out[2]);
  }
}

}  // namespace

void BlockRows::bind(const ImagePlan& plan, PixelRows& rows, std::size_t channels) {
  plan_ = &plan, rows_ = &rows, channels_ = channels;
  held_ = {kNone, kNone};
  const std::size_t bytes = std::max(rows.layout().bytes, 3 * plan.columns.camera);
  if (sums_.size() < bytes + 1) sums_.resize(bytes + 1);  // one vector reaches one further
  for (auto& row : block_)
    if (row.size() < channels * plan.columns.blocks) row.resize(channels * plan.columns.blocks);
}

const float* BlockRows::row(std::size_t y) {
  float* const out = block_[y % 2].data();
  if (held_[y % 2] == y) return out;
  held_[y % 2] = y;
  const RowLayout& layout = rows_->layout();
  const StoredAxis& columns = plan_->columns;
  if (layout.stride == 1 && columns.block % 2 == 0) {
    add_pairs(y, out);
    return out;
  }
  std::uint16_t* __restrict const sums = sums_.data();
  for (std::size_t i = 0; i < plan_->rows.block; ++i) {
    const std::uint8_t* __restrict const row = rows_->row(plan_->rows.origin + y * plan_->rows.block + i);
    if (i == 0) {
      for (std::size_t x = 0; x < layout.bytes; ++x) sums[x] = row[x];
    } else {
      for (std::size_t x = 0; x < layout.bytes; ++x) sums[x] = static_cast<std::uint16_t>(sums[x] + row[x]);
    }
  }
  const std::uint16_t* const first = sums + columns.origin * layout.stride;
  if (layout.stride == 3) {
    std::array<float*, 3> planes{};
    for (std::size_t c = 0; c < 3; ++c) planes[layout.offset[c]] = out + c * columns.blocks;
    sum_pixels(first, columns.blocks, columns.block, planes);
    return out;
  }
  for (std::size_t c = 0; c < channels_; ++c)
    sum_blocks(first + layout.offset[c], columns.blocks, columns.block, out + c * columns.blocks);
  return out;
}

// Planar rows in blocks of an even width: half of the columns are summed at once.
void BlockRows::add_pairs(std::size_t y, float* out) {
  const RowLayout& layout = rows_->layout();
  const StoredAxis& columns = plan_->columns;
  const std::size_t used = columns.blocks * columns.block, half = used / 2;
  for (std::size_t i = 0; i < plan_->rows.block; ++i) {
    const std::uint8_t* const row =
        rows_->row(plan_->rows.origin + y * plan_->rows.block + i) + columns.origin;
    for (std::size_t c = 0; c < channels_; ++c)
      lanes_.add_pairs(row + layout.offset[c], used, i == 0, sums_.data() + c * half);
  }
  for (std::size_t c = 0; c < channels_; ++c)
    sum_blocks(sums_.data() + c * half, columns.blocks, columns.block / 2, out + c * columns.blocks);
}

}  // namespace mmedge
