#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "sample_ring.hpp"

namespace {

using mmedge::SampleRing;

// Never zero, and different for neighbours and for every turn of the ring.
float value_of(std::int64_t index) { return static_cast<float>(index % 1000003 + 1); }

void edges() {
  SampleRing ring(4);
  float out[6];
  CHECK(ring.read(0, out, 6) == 0 && ring.begin() == 0 && ring.end() == 0 && ring.capacity() == 4);
  const float samples[] = {1, 2, 3, 4, 5, 6};
  CHECK(ring.write(samples, 3) == 3 && ring.begin() == 0);
  CHECK(ring.write(samples + 3, 3) == 6 && ring.begin() == 2);
  CHECK(ring.read(7, out, 6) == 4);
  const float want[] = {0, 3, 4, 5, 6, 0};
  CHECK(std::equal(out, out + 6, want));
  CHECK(ring.write_silence(2) == 8 && ring.read(8, out, 4) == 2);
  CHECK(out[0] == 5 && out[1] == 6 && out[2] == 0 && out[3] == 0);
  CHECK(ring.write(samples, 6) == 14 && ring.read(14, out, 5) == 4);
  CHECK(out[0] == 0 && out[1] == 3 && out[4] == 6);
  CHECK(ring.write_silence(std::int64_t{1} << 40) == (std::int64_t{1} << 40) + 14 &&
        ring.read(ring.end(), out, 4) == 0);
  CHECK(ring.read(-5, out, 6) == 0 && ring.read(ring.end() + 100, out, 6) == 0 && ring.read(3, out, 0) == 0);
}

void hostile() {
  constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  CHECK(refuses([] { SampleRing ring(0); }));
  CHECK(refuses([] { SampleRing ring(-1); }));
  SampleRing ring(4);
  float out[2];
  CHECK(refuses([&] { ring.write_silence(-1); }));
  CHECK(refuses([&] { ring.read(kMin + 1, out, 2); }));
  CHECK(ring.read(kMin + 2, out, 2) == 0 && ring.read(kMax, out, 2) == 0);
  CHECK(ring.write_silence(kMax) == kMax);
  CHECK(refuses([&] { ring.write_silence(1); }));
  CHECK(refuses([&] { ring.write(out, 1); }));
  CHECK(ring.end() == kMax && ring.read(kMax, out, 2) == 0);
}

// A writer that laps the reader all the time: what is read is either the right sample or zero and uncounted.
void two_threads() {
  SampleRing ring(1000);
  std::atomic<bool> done{false};
  std::thread writer([&] {
    std::vector<float> block;
    for (int turn = 0; turn < 20000; ++turn) {
      const std::int64_t start = ring.end();
      if (turn % 50 == 49) {
        ring.write_silence(7);
        continue;
      }
      block.resize(turn % 2 == 0 ? 160 : 900);
      for (std::size_t i = 0; i < block.size(); ++i)
        block[i] = value_of(start + static_cast<std::int64_t>(i));
      ring.write(block.data(), block.size());
    }
    done = true;
  });
  std::mt19937 random(1);
  std::vector<float> out(900);
  while (!done) {
    const std::int64_t end = ring.end() - static_cast<std::int64_t>(random() % 300);
    const std::int64_t real = ring.read(end, out.data(), out.size());
    std::int64_t seen = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::int64_t index = end - static_cast<std::int64_t>(out.size() - i);
      CHECK(out[i] == 0.0f || out[i] == value_of(index));
      seen += out[i] != 0.0f;
    }
    CHECK(seen == real);
  }
  writer.join();
  const std::int64_t real = ring.read(ring.end(), out.data(), out.size());
  CHECK(real >= 900 - 14);
}

}  // namespace

int main() {
  edges();
  hostile();
  two_threads();
}
