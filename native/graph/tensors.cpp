#include "graph/tensors.hpp"

#include <algorithm>
#include <cstring>

#include "finite.hpp"

namespace mmedge {
namespace {

void copy(const std::vector<Link>& links) {
  for (const Link& link : links) std::memcpy(link.to, link.from, link.bytes);
}

}  // namespace

void Tensors::feed(const Moment& moment, std::uint64_t bits) {
  copy(links);
  for (const SeatRow& row : rows) {
    for (std::size_t seat = 0; seat < moment.marks.size(); ++seat) {
      const bool there = bits >> seat & 1;
      row.values[seat] = row.presence ? static_cast<float>(there)
                         : there      ? static_cast<float>(moment.ages_ms[seat])
                                      : 0.0f;
    }
  }
}

bool Tensors::differ() const {
  return std::any_of(links.begin(), links.end(),
                     [](const Link& link) { return std::memcmp(link.to, link.from, link.bytes) != 0; });
}

void Tensors::carry() { copy(states); }

void Tensors::forget() {
  for (const Link& state : states) std::memset(state.to, 0, state.bytes);
}

void Tensors::wipe() {
  forget();
  copy(constants);
}

void Tensors::publish() { copy(copies); }

void Tensors::clear() {
  for (const Block& block : shown) std::memset(block.data, 0, block.bytes);
}

bool Tensors::finite() const {
  return std::all_of(outputs.begin(), outputs.end(),
                     [](const Numbers& output) { return all_finite(output.values, output.n, output.bytes); });
}

}  // namespace mmedge
