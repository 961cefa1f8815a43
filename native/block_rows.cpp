#include "block_rows.hpp"

#include <algorithm>
#include <cstring>

namespace mmedge {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// Three sums of each block, as one vector with a neighbour: writes one float beyond the last.
void interleaved(const std::uint16_t* __restrict sums, std::size_t distance, std::size_t blocks,
                 float* __restrict out) {
  using Numbers = std::uint16_t __attribute__((vector_size(8)));
  using Whole = std::int32_t __attribute__((vector_size(16)));
  using Floats = float __attribute__((vector_size(16)));
  for (std::size_t x = 0; x < blocks; ++x) {
    Numbers numbers;
    std::memcpy(&numbers, sums + x * distance, sizeof numbers);
    const Floats values = __builtin_convertvector(__builtin_convertvector(numbers, Whole), Floats);
    std::memcpy(out + 3 * x, &values, sizeof values);
  }
}

}  // namespace

void BlockRows::bind(const ImagePlan& plan, PixelRows& rows) {
  plan_ = &plan, rows_ = &rows;
  held_ = row_held_ = {kNone, kNone};
  const auto grow = [](auto& buffer, std::size_t size) {
    if (buffer.size() < size) buffer.resize(size);
  };
  const std::size_t values = rows.layout().bytes;
  // The last sums reach beyond the row, and are not used.
  grow(columns_, values + plan.columns.block * rows.layout().stride);
  for (auto& row : sums_) grow(row, values + 1);  // one vector reaches one further
  for (auto& row : row_) grow(row, 3 * plan.columns.blocks + 1);
}

std::size_t BlockRows::at(std::size_t c) const {
  const RowLayout& layout = rows_->layout();
  return paired() ? layout.offset[c] / 2 : layout.offset[c] + plan_->columns.origin * layout.stride;
}

std::size_t BlockRows::step() const {
  return paired() ? plan_->columns.block / 2 : plan_->columns.block * rows_->layout().stride;
}

// Sums of columns, or of two of them, over the rows of a block.
std::size_t BlockRows::add_rows(std::size_t y) {
  const std::size_t first = plan_->rows.origin + y * plan_->rows.block, bytes = rows_->layout().bytes;
  const std::size_t origin = plan_->columns.origin;
  for (std::size_t i = 0; i < plan_->rows.block; i += paired() ? 1 : 2) {
    const std::uint8_t* const row = rows_->row(first + i);
    if (paired())
      lanes_.add_pairs(row + origin, bytes - origin, i == 0, columns_.data());
    else
      lanes_.add_rows(row, i + 1 < plan_->rows.block ? rows_->row(first + i + 1) : nullptr, bytes, i == 0,
                      columns_.data());
  }
  return paired() ? (bytes - origin) / 2 : bytes;
}

const std::uint16_t* BlockRows::sums(std::size_t y) {
  std::uint16_t* const out = sums_[y % 2].data();
  if (held_[y % 2] == y) return out;
  held_[y % 2] = y;
  const std::size_t n = add_rows(y), block = plan_->columns.block;
  lanes_.add_steps(columns_.data(), n, rows_->layout().stride, paired() ? block / 2 : block, out);
  return out;
}

const float* BlockRows::row(std::size_t y) {
  float* const out = row_[y % 2].data();
  if (row_held_[y % 2] == y) return out;
  row_held_[y % 2] = y;
  const std::uint16_t* const from = small() ? sums(y) : columns_.data();
  if (!small()) add_rows(y);
  const RowLayout& layout = rows_->layout();
  const std::size_t blocks = plan_->columns.blocks, distance = step();
  const std::size_t parts = small() ? 1 : paired() ? plan_->columns.block / 2 : plan_->columns.block;
  if (small() && layout.stride == 3) {
    interleaved(from + plan_->columns.origin * 3, distance, blocks, out);
    return out;
  }
  const std::size_t channels = layout.offset[1] == 0 ? 1 : 3;
  for (std::size_t c = 0; c < channels; ++c) {
    const std::uint16_t* __restrict const first = from + at(c);
    const bool apart = layout.stride == 1;
    float* __restrict const to = out + (apart ? c * blocks : layout.offset[c]);
    for (std::size_t x = 0; x < blocks; ++x) {
      std::int32_t sum = first[x * distance];
      for (std::size_t i = 1; i < parts; ++i) sum += first[x * distance + i * layout.stride];
      to[x * layout.stride] = static_cast<float>(sum);
    }
  }
  return out;
}

}  // namespace mmedge
