#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"
#include "jpeg_scan.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

// 16x16 grey pixels without tables of their own: four blocks, each "no difference, end of block" (00 1010).
Bytes flat(std::initializer_list<std::uint8_t> scan) {
  Bytes data{0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0, 16, 0, 16, 1, 1,
             0x11, 0,    0xff, 0xda, 0, 8,  1, 1, 0,  0, 63, 0};
  data.insert(data.end(), scan);
  data.insert(data.end(), {0xff, 0xd9});
  return data;
}

std::ptrdiff_t unused(const Bytes& data) { return mmedge::jpeg_unused(data.data(), data.size()); }

void judges() {
  CHECK(unused(flat({0x28, 0xa2, 0x8a})) == 0);
  CHECK(unused(flat({0x28, 0xa2, 0x8a, 0x00, 0x00})) == 2);
  CHECK(unused(flat({0x28, 0xa2})) == mmedge::kJpegDamaged);
  CHECK(unused(flat({0xff, 0x00, 0xff, 0x00})) == mmedge::kJpegDamaged);  // no such code
  Bytes progressive = flat({0x28, 0xa2, 0x8a});
  progressive[3] = 0xc2;
  CHECK(unused(progressive) == mmedge::kJpegOther);
  CHECK(unused({}) == mmedge::kJpegDamaged && unused({0xff}) == mmedge::kJpegDamaged);
}

void hostile() {
  std::mt19937 random(1);
  const Bytes whole = flat({0x28, 0xa2, 0x8a});
  for (int round = 0; round < 200'000; ++round) {
    Bytes data = whole;
    for (unsigned hits = random() % 4; hits > 0; --hits)
      data[random() % data.size()] = static_cast<std::uint8_t>(random());
    data.resize(random() % 2 ? data.size() : random() % data.size());
    CHECK(unused(data) >= mmedge::kJpegOther);
  }
}

}  // namespace

int main() {
  judges();
  hostile();
}
