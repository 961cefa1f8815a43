// Who watches a ring reads its slots in place, knows what was overwritten, and cannot change anything.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>

#include "check.hpp"
#include "slot_ring.hpp"

namespace {

using mmedge::SharedMemory;
using mmedge::SlotRing;

// What a slot holds: one number, all over.
constexpr std::int64_t kWords = 512;

void fill(const SlotRing& ring, std::int64_t slot, std::uint64_t number) {
  auto* const words = reinterpret_cast<std::uint64_t*>(ring.data(slot));
  for (std::int64_t i = 0; i < kWords; ++i) words[i] = number;
}

void states() {
  SlotRing ring(2, 8 * kWords);
  const SlotRing watched = SlotRing::watch(ring.fd());
  CHECK(watched.slots() == 2 && watched.slot_bytes() == 8 * kWords && !watched.holds(0, 0));
  CHECK(ring.acquire(false) == 0 && !watched.holds(0, 1) && !watched.holds(0, 0));
  fill(ring, 0, 9);
  CHECK(ring.publish(0, "", 0) == 1 && watched.holds(0, 1) && !watched.holds(0, 2) && !watched.holds(1, 1));
  CHECK(*reinterpret_cast<const std::uint64_t*>(watched.data(0)) == 9);
  CHECK(ring.take() && watched.holds(0, 1));
  ring.release(0);
  CHECK(watched.holds(0, 1) && ring.acquire(false) == 1 && ring.hold(1) == 2 && watched.holds(1, 2));
  CHECK(ring.acquire(false) == 0 && !watched.holds(0, 1));
  ring.release(0);
  CHECK(!watched.holds(0, 1) && !watched.holds(0, 0));
  for (const std::int64_t index :
       {std::int64_t{-1}, std::int64_t{2}, std::numeric_limits<std::int64_t>::max()}) {
    try {
      watched.holds(index, 1);
      CHECK(false);
    } catch (const std::out_of_range&) {
    }
  }
}

template <typename Function>
bool dies(Function function) {
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    function();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == pid);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

void cannot_be_changed() {
  const SlotRing ring(1, 8);
  SlotRing watched = SlotRing::watch(ring.fd());
  CHECK(dies([&] { watched.acquire(false); }));
  CHECK(dies([&] { *static_cast<volatile std::uint8_t*>(watched.data(0)) = 1; }));
  const SharedMemory memory = SharedMemory::attach(ring.fd(), false);
  CHECK(dies([&] { *static_cast<volatile std::uint8_t*>(memory.data()) = 1; }));
  CHECK(ring.free() == 1);
}

// A reader looks at slots in place while they are written again and again: what still holds its number then
// was read whole.
void race() {
  SlotRing ring(2, 8 * kWords);
  const SlotRing watched = SlotRing::watch(ring.fd());
  std::atomic<std::uint64_t> newest{0};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    std::int64_t held[2] = {-1, -1};
    for (std::uint64_t number = 1; !stop; ++number) {
      std::int64_t& slot = held[number % 2];
      if (slot >= 0) ring.release(slot);
      slot = ring.acquire(false);
      CHECK(slot >= 0);
      fill(ring, slot, number);
      CHECK(ring.hold(slot) == number);
      if (number % 64 == 0) std::this_thread::yield();
      newest.store(number << 1 | static_cast<std::uint64_t>(slot), std::memory_order_release);
    }
  });
  int whole = 0, gone = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (int turn = 0; (whole < 2000 || gone < 20) && std::chrono::steady_clock::now() < until; ++turn) {
    const std::uint64_t told = newest.load(std::memory_order_acquire);
    const std::uint64_t number = told >> 1;
    const auto slot = static_cast<std::int64_t>(told & 1);
    if (number == 0 || !watched.holds(slot, number)) {
      std::this_thread::yield();
      continue;
    }
    const auto* const words = reinterpret_cast<const std::uint64_t*>(watched.data(slot));
    bool same = true;
    for (std::int64_t i = 0; i < kWords; ++i) same = same && words[i] == number;
    if (turn % 3 == 0) std::this_thread::yield();
    if (watched.holds(slot, number)) {
      CHECK(same);
      ++whole;
    } else {
      ++gone;
    }
  }
  stop = true;
  writer.join();
  CHECK(whole > 0);
}

}  // namespace

int main() {
  states();
  cannot_be_changed();
  race();
  return 0;
}
