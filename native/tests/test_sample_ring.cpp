#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"
#include "sample_ring.hpp"

namespace {

using mmedge::SampleRing;
using mmedge::SharedMemory;

// Where things lie in the shared memory: what an attacker knows.
constexpr std::size_t kCapacity = 16, kClaimed = 64, kEnd = 72, kSamples = 128;

// Never zero, and different for neighbours and for every turn of the ring.
float value_of(std::int64_t index) { return static_cast<float>(index % 1000003 + 1); }

void edges(SampleRing ring) {
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

template <typename T>
void poke(const SharedMemory& memory, std::size_t at, T value) {
  std::memcpy(static_cast<unsigned char*>(memory.data()) + at, &value, sizeof value);
}

void hostile_attach() {
  for (const std::size_t bytes : {0, 1, 127, 1 << 20}) {
    const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0);
    CHECK(refuses([fd] { SampleRing::attach(fd); }));
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    CHECK(refuses([fd] { SampleRing::attach(fd); }));
    close(fd);
  }
  const SharedMemory memory = SharedMemory::attach(SampleRing::shared(1000).fd());
  for (const std::size_t at : {std::size_t{0}, std::size_t{8}, kCapacity}) {
    std::int64_t good;
    std::memcpy(&good, static_cast<unsigned char*>(memory.data()) + at, 8);
    for (const std::int64_t bad :
         {std::int64_t{0}, std::int64_t{-1}, good - 1, good + 1, good ^ (std::int64_t{1} << 62),
          std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
      poke(memory, at, bad);
      CHECK(refuses([&] { SampleRing::attach(memory.fd()); }));
    }
    poke(memory, at, good);
  }
  CHECK(SampleRing::attach(memory.fd()).capacity() == 1000);
  CHECK(SampleRing(4).fd() == -1);
}

// A broken process may write anything anywhere at any time; nothing but wrong samples may come of it.
void hostile_peer() {
  SampleRing ring = SampleRing::shared(16);
  const SharedMemory peer = SharedMemory::attach(ring.fd());
  std::mt19937_64 random(2);
  float samples[40] = {};
  for (int turn = 0; turn < 20000; ++turn) {
    const std::uint64_t any = random() >> random() % 64;
    poke(peer, std::vector<std::size_t>{kCapacity, kClaimed, kEnd}[random() % 3], random() % 2 ? any : ~any);
    const std::size_t n = random() % 40;
    refuses([&] { ring.write(samples, n); });
    refuses([&] { ring.write_silence(static_cast<std::int64_t>(any >> 1)); });
    for (const std::int64_t end : {ring.end(), ring.begin(), static_cast<std::int64_t>(any)})
      refuses([&] { CHECK(ring.read(end, samples, n) <= 16); });
    CHECK(ring.capacity() == 16 && ring.begin() >= 0 && ring.end() >= ring.begin());
  }
}

// What a writer that died had half overwritten is not read as if it were what was there before.
void dead_writer() {
  SampleRing ring = SampleRing::shared(1000);
  const std::vector<float> before(1000, 1.0f);
  ring.write(before.data(), before.size());
  const SharedMemory dead = SharedMemory::attach(ring.fd());
  poke(dead, kClaimed, std::int64_t{1500});
  for (std::size_t i = 0; i < 300; ++i) poke(dead, kSamples + 4 * i, -1.0f);
  SampleRing next = SampleRing::attach(ring.fd());
  CHECK(next.write(before.data(), 10) == 1010);
  std::vector<float> out(1000);
  CHECK(ring.read(1010, out.data(), out.size()) == 510);
  CHECK(std::count(out.begin(), out.end(), 1.0f) == 510 && std::count(out.begin(), out.end(), 0.0f) == 490);
}

// A writer that laps the reader all the time: what is read is either the right sample or zero and uncounted.
void two_threads(SampleRing& to, const SampleRing& from) {
  std::atomic<bool> done{false};
  std::thread writer([&] {
    std::vector<float> block;
    for (int turn = 0; turn < 20000; ++turn) {
      const std::int64_t start = to.end();
      if (turn % 50 == 49) {
        to.write_silence(7);
        continue;
      }
      block.resize(turn % 2 == 0 ? 160 : 900);
      for (std::size_t i = 0; i < block.size(); ++i)
        block[i] = value_of(start + static_cast<std::int64_t>(i));
      to.write(block.data(), block.size());
    }
    done = true;
  });
  std::mt19937 random(1);
  std::vector<float> out(900);
  while (!done) {
    const std::int64_t end = from.end() - static_cast<std::int64_t>(random() % 300);
    const std::int64_t real = from.read(end, out.data(), out.size());
    std::int64_t seen = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::int64_t index = end - static_cast<std::int64_t>(out.size() - i);
      CHECK(out[i] == 0.0f || out[i] == value_of(index));
      seen += out[i] != 0.0f;
    }
    CHECK(seen == real);
  }
  writer.join();
  const std::int64_t real = from.read(from.end(), out.data(), out.size());
  CHECK(real >= 900 - 14);
}

}  // namespace

int main() {
  edges(SampleRing(4));
  edges(SampleRing::shared(4));
  hostile();
  hostile_attach();
  hostile_peer();
  dead_writer();
  SampleRing own(1000), mine = SampleRing::shared(1000), theirs = SampleRing::attach(mine.fd());
  two_threads(own, own);
  two_threads(mine, theirs);
}
