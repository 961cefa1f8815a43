#include "fingerprint.hpp"

#include <algorithm>
#include <cstring>

namespace mmedge {
namespace {

constexpr std::size_t kLanes = 4;  // that do not wait for each other
constexpr std::size_t kStep = 16;  // bytes of each at once
constexpr std::uint64_t kKeys[kLanes] = {0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb,
                                         0xd6e8feb86659fd93};

// Both halves of the product: every bit of either number changes half of the bits.
std::uint64_t folded(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

std::uint64_t word_at(const std::uint8_t* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);  // little endian, as every CPU we run on
  return word;
}

}  // namespace

std::uint64_t fingerprint(const std::uint8_t* data, std::size_t n) {
  std::uint64_t lanes[kLanes] = {kKeys[3] ^ n, kKeys[0], kKeys[1], kKeys[2]};
  const auto take = [&](std::size_t k, const std::uint8_t* from) {
    lanes[k] = folded(lanes[k] ^ word_at(from), kKeys[k] ^ word_at(from + 8));
  };
  std::size_t at = 0;
  for (; at + kStep * kLanes <= n; at += kStep * kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) take(k, data + at + kStep * k);
  for (std::size_t k = 0; at < n; at += kStep, ++k) {
    std::uint8_t rest[kStep] = {};
    std::copy_n(data + at, std::min(kStep, n - at), rest);
    take(k, rest);
  }
  std::uint64_t all = n;
  for (std::size_t k = 0; k < kLanes; ++k) all = folded(all ^ lanes[k], kKeys[k]);
  return all;
}

}  // namespace mmedge
