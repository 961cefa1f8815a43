#include <cstdint>
#include <set>
#include <vector>

#include "check.hpp"
#include "fingerprint.hpp"

namespace {

std::uint64_t of(const std::vector<std::uint8_t>& bytes) {
  return mmedge::fingerprint(bytes.data(), bytes.size());
}

// On every CPU.
void known_numbers() {
  std::vector<std::uint8_t> bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * i);
  CHECK(of({}) == 0x1aea815d39359d8f && of({1, 2, 3}) == 0x1a9bb20eec393ffa &&
        of(bytes) == 0xa044da3ef3ebfc4e);
}

void each_byte_counts() {
  for (const std::size_t n : {1u, 7u, 8u, 31u, 32u, 33u, 64u, 100u}) {
    std::set<std::uint64_t> seen{of(std::vector<std::uint8_t>(n)), of(std::vector<std::uint8_t>(n + 1))};
    for (std::size_t i = 0; i < n; ++i)
      for (const int value : {1, 128, 255}) {
        std::vector<std::uint8_t> bytes(n);
        bytes[i] = static_cast<std::uint8_t>(value);
        seen.insert(of(bytes));
      }
    CHECK(seen.size() == 2 + 3 * n);
  }
}

void order_counts() {
  std::vector<std::uint8_t> bytes(96);
  bytes[0] = bytes[40] = 1;
  std::vector<std::uint8_t> other(96);
  other[32] = other[8] = 1;  // the same words in other places of their lanes
  CHECK(of(bytes) != of(other));
}

}  // namespace

int main() {
  known_numbers();
  each_byte_counts();
  order_counts();
  return 0;
}
