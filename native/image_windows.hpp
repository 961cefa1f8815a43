// How the windows of a row are walked, for each set of instructions; theirs alone, as what includes it.
#pragma once

#include <cstddef>
#include <type_traits>

namespace mmedge {
namespace {

// Calls `act` with the number of windows as a constant.
template <typename Act>
void by_count(std::size_t count, const Act& act) {
  if (count == 1) return act(std::integral_constant<std::size_t, 1>{});
  if (count == 2) return act(std::integral_constant<std::size_t, 2>{});
  if (count == 4) return act(std::integral_constant<std::size_t, 4>{});
  act(std::integral_constant<std::size_t, 8>{});
}

// The first window of 16 taps: those of two units stand in turn.
template <std::size_t kCount>
constexpr std::size_t first_window(std::size_t unit) {
  return unit / 2 * 2 * kCount + unit % 2;
}

}  // namespace
}  // namespace mmedge
