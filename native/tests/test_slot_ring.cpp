#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "slot_ring.hpp"

namespace {

using mmedge::SharedMemory;
using mmedge::SlotRing;

constexpr std::int64_t kBytes = 4096;
// Where things lie in the shared memory: what an attacker knows.
constexpr std::size_t kSlots = 16, kSlotBytes = 24, kPublished = 64, kFirstSlot = 192, kSlotSize = 1088;

template <typename Function>
bool out_of_range(Function function) {
  try {
    function();
  } catch (const std::out_of_range&) {
    return true;
  }
  return false;
}

void fill(const SlotRing& ring, std::int64_t index, std::uint64_t seq) {
  const auto words = static_cast<std::size_t>(ring.slot_bytes()) / 8;
  std::uint64_t* const to = reinterpret_cast<std::uint64_t*>(ring.data(index));
  for (std::size_t i = 0; i < words; ++i) to[i] = seq;
}

bool holds(const std::uint8_t* data, std::int64_t bytes, std::uint64_t seq) {
  const std::uint64_t* const words = reinterpret_cast<const std::uint64_t*>(data);
  return std::all_of(words, words + bytes / 8, [seq](std::uint64_t word) { return word == seq; });
}

bool holds(const SlotRing& ring, std::int64_t index, std::uint64_t seq) {
  return holds(ring.data(index), ring.slot_bytes(), seq);
}

std::uint64_t publish(SlotRing& ring, std::int64_t index, std::uint64_t number) {
  return ring.publish(index, reinterpret_cast<const char*>(&number), sizeof number);
}

std::uint64_t number_of(const SlotRing::Taken& taken) {
  std::uint64_t number = 0;
  CHECK(taken.header.size() == sizeof number);
  std::memcpy(&number, taken.header.data(), sizeof number);
  return number;
}

void edges() {
  SlotRing ring(3, 100);
  CHECK(ring.slots() == 3 && ring.slot_bytes() == 100 && ring.free() == 3 && ring.ready() == 0);
  CHECK(!ring.take() && ring.dropped() == 0 && ring.fd() >= 0);
  CHECK((ring.data(1) - ring.data(0)) == 128 && reinterpret_cast<std::uintptr_t>(ring.data(0)) % 4096 == 0);
  for (std::int64_t i = 0; i < 3; ++i) CHECK(ring.acquire(false) == i);
  CHECK(ring.acquire(false) == -1 && ring.acquire(true) == -1);
  CHECK(ring.publish(2, "two", 3) == 1 && ring.publish(0, nullptr, 0) == 2 && ring.publish(1, "one", 3) == 3);
  CHECK(ring.ready() == 3 && ring.acquire(false) == -1);
  CHECK(ring.acquire(true) == 2 && ring.dropped() == 1 && ring.ready() == 2);
  const auto first = ring.take();
  CHECK(first && first->index == 0 && first->seq == 2 && first->header.empty());
  const auto second = ring.take();
  CHECK(second && second->index == 1 && second->seq == 3 && second->header == "one");
  CHECK(!ring.take() && ring.free() == 0);
  ring.release(1);
  ring.release(1);
  ring.release(0);
  CHECK(ring.free() == 2);
  CHECK(ring.acquire(true) == 0 && ring.acquire(true) == 1);  // the oldest data first
  const std::string header(SlotRing::kMaxHeader, 'h');
  CHECK(refuses([&] { ring.publish(0, std::string(1025, 'h').data(), 1025); }));
  CHECK(ring.publish(0, header.data(), header.size()) == 4);
  ring.release(0);  // READY is left alone
  CHECK(refuses([&] { ring.publish(0, "", 0); }));
  CHECK(ring.take()->header == header);
  CHECK(refuses([&] { ring.publish(0, "", 0); }));
  for (const std::int64_t index :
       {std::int64_t{-1}, std::int64_t{3}, std::numeric_limits<std::int64_t>::min(),
        std::numeric_limits<std::int64_t>::max()}) {
    std::uint8_t byte = 0;
    CHECK(out_of_range([&] { ring.data(index); }) && out_of_range([&] { ring.release(index); }));
    CHECK(out_of_range([&] { ring.publish(index, "", 0); }) &&
          out_of_range([&] { ring.copy(index, 1, &byte, 1); }));
  }
}

void copies() {
  SlotRing ring(1, kBytes);
  std::vector<std::uint8_t> out(kBytes + 1);
  const auto copied = [&](std::uint64_t seq) { return ring.copy(0, seq, out.data(), kBytes); };
  CHECK(!copied(0) && !copied(1));
  ring.acquire(false);
  fill(ring, 0, 77);
  CHECK(!copied(0) && !copied(1));
  CHECK(ring.publish(0, "", 0) == 1 && copied(1) && holds(out.data(), kBytes, 77) && !copied(2) &&
        !copied(0));
  ring.take();
  CHECK(copied(1));
  ring.release(0);
  CHECK(copied(1) && ring.copy(0, 1, out.data() + 1, 13) && out[1] == 77 && out[9] == 77);
  CHECK(refuses([&] { ring.copy(0, 1, out.data(), kBytes + 1); }));
  ring.acquire(false);
  CHECK(!copied(1));
  ring.release(0);  // given up after maybe half a write
  CHECK(!copied(1) && !copied(0) && ring.free() == 1);

  ring.acquire(false);
  fill(ring, 0, 78);
  const std::uint64_t seq = ring.hold(0);  // kept by its writer, and never taken
  CHECK(seq > 1 && ring.hold(0) == seq && !ring.take() && copied(seq) && holds(out.data(), kBytes, 78));
  CHECK(refuses([&] { ring.publish(0, "", 0); }));
  ring.release(0);
  CHECK(copied(seq) && ring.hold(0) == 0);
  ring.acquire(false);
  CHECK(!copied(seq) && out_of_range([&] { ring.hold(1); }));
}

int memfd(std::size_t bytes, int seals) {
  const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0);
  return fd;
}

void hostile_attach() {
  for (const auto& [bytes, seals] : {std::pair<std::size_t, int>{0, F_SEAL_SHRINK},
                                     {1, F_SEAL_SHRINK},
                                     {191, F_SEAL_SHRINK},
                                     {1 << 20, F_SEAL_SHRINK},
                                     {1 << 20, F_SEAL_GROW}}) {
    const int fd = memfd(bytes, seals);
    CHECK(refuses([fd] { SlotRing::attach(fd); }));
    close(fd);
  }
  int ends[2];
  CHECK(pipe(ends) == 0);
  CHECK(refuses([&] { SlotRing::attach(ends[0]); }));
  close(ends[0]);
  close(ends[1]);
  const SharedMemory whole = SharedMemory::attach(SlotRing(2, 100).fd());
  const int short_fd = memfd(whole.size() - 64, F_SEAL_SHRINK);
  CHECK(pwrite(short_fd, whole.data(), whole.size() - 64, 0) == static_cast<ssize_t>(whole.size() - 64));
  CHECK(refuses([=] { SlotRing::attach(short_fd); }));
  close(short_fd);
  const int unsealed = memfd(whole.size(), F_SEAL_GROW);
  CHECK(pwrite(unsealed, whole.data(), whole.size(), 0) == static_cast<ssize_t>(whole.size()));
  CHECK(refuses([=] { SlotRing::attach(unsealed); }));
  CHECK(fcntl(unsealed, F_ADD_SEALS, F_SEAL_SHRINK) == 0 && SlotRing::attach(unsealed).slots() == 2);
  close(unsealed);
  auto* const bytes = static_cast<unsigned char*>(whole.data());
  CHECK(SlotRing::attach(whole.fd()).slots() == 2);
  for (const std::size_t at : {std::size_t{0}, std::size_t{8}, kSlots, kSlotBytes}) {
    std::int64_t good;
    std::memcpy(&good, bytes + at, 8);
    for (const std::int64_t bad :
         {std::int64_t{0}, std::int64_t{-1}, good + 64, std::int64_t{1} << 32,
          good + 1 + (std::int64_t{1} << 33), std::numeric_limits<std::int64_t>::min(),
          std::numeric_limits<std::int64_t>::max()}) {
      std::memcpy(bytes + at, &bad, 8);
      CHECK(refuses([&] { SlotRing::attach(whole.fd()); }));
    }
    std::memcpy(bytes + at, &good, 8);
  }
  CHECK(SlotRing::attach(whole.fd()).slot_bytes() == 100);
}

// A broken process may write anything anywhere at any time; nothing but wrong data may come of it.
void hostile_peer() {
  SlotRing ring(4, kBytes);
  const SharedMemory peer = SharedMemory::attach(ring.fd());
  auto* const bytes = static_cast<unsigned char*>(peer.data());
  ring.acquire(false);
  ring.publish(0, "abc", 3);
  const std::uint32_t absurd = 0xffffffff;
  std::memcpy(bytes + kFirstSlot + 8, &absurd, sizeof absurd);
  CHECK(ring.take()->header.size() == SlotRing::kMaxHeader);
  std::memset(bytes + kPublished, 0xff, 8);
  CHECK(ring.acquire(false) == 1);
  CHECK(ring.publish(1, "abc", 3) == 0);
  std::mt19937 random(1);
  std::vector<std::uint8_t> out(kBytes);
  for (int turn = 0; turn < 20000; ++turn) {
    const std::size_t at =
        random() % 4 == 0 ? random() % kFirstSlot : kFirstSlot + random() % 4 * kSlotSize + random() % 16;
    bytes[at] = static_cast<unsigned char>(random());
    const std::int64_t index = random() % 4;
    switch (random() % 5) {
      case 0:
        CHECK(ring.acquire(true) < 4);
        break;
      case 1:
        refuses([&] { ring.publish(index, "abcdef", 6); });
        break;
      case 2:
        if (const auto taken = ring.take())
          CHECK(taken->index >= 0 && taken->index < 4 && taken->header.size() <= SlotRing::kMaxHeader);
        break;
      case 3:
        ring.release(index);
        break;
      default:
        ring.copy(index, random() % 8, out.data(), out.size());
    }
    CHECK(ring.free() + ring.ready() <= 4 && ring.slots() == 4 && ring.slot_bytes() == kBytes);
  }
}

struct Reader {
  explicit Reader(SlotRing& from) : ring(from) {}

  SlotRing& ring;
  std::uint64_t last = 0;
  std::uint64_t taken = 0;
  std::deque<std::int64_t> held;

  bool step() {
    const auto slot = ring.take();
    if (!slot) return false;
    CHECK(slot->seq > last && number_of(*slot) == slot->seq && holds(ring, slot->index, slot->seq));
    last = slot->seq;
    ++taken;
    held.push_back(slot->index);
    return true;
  }

  void release(std::size_t keep) {
    for (; held.size() > keep; held.pop_front()) {
      // What is held stays as it is, whatever was stolen meanwhile.
      const std::uint64_t seq = *reinterpret_cast<const std::uint64_t*>(ring.data(held.front()));
      CHECK(seq <= last && holds(ring, held.front(), seq));
      ring.release(held.front());
    }
  }
};

void writer_and_reader(SlotRing& to, SlotRing& from, std::uint64_t turns) {
  std::atomic<bool> done{false};
  std::uint64_t published = 0;
  std::thread writer([&] {
    std::mt19937 random(2);
    std::vector<std::int64_t> mine;
    while (published < turns) {
      mine.clear();
      for (std::int64_t want = 1 + random() % 4; want > 0; --want) {
        const std::int64_t index = to.acquire(true);
        if (index >= 0) mine.push_back(index);
      }
      // One after the other, but here and there in the ring: the reader's scan must not be overtaken.
      std::shuffle(mine.begin(), mine.end(), random);
      for (std::size_t i = 0; i < mine.size(); ++i) fill(to, mine[i], published + 1 + i);
      for (const std::int64_t index : mine) {
        ++published;
        CHECK(publish(to, index, published) == published);
      }
      const std::int64_t given_up = to.acquire(false);
      if (given_up >= 0) {
        fill(to, given_up, 0);
        to.release(given_up);
      }
    }
    done = true;
  });
  std::mt19937 random(3);
  Reader reader(from);
  while (!done) {
    reader.step();
    reader.release(random() % 3);
  }
  writer.join();
  const auto ready = static_cast<std::uint64_t>(from.ready());
  CHECK(reader.taken + from.dropped() + ready == published);
  while (reader.step()) continue;
  reader.release(0);
  CHECK(reader.taken > 0 && reader.taken + from.dropped() == published && from.free() == from.slots());
}

// The plain accesses to data and headers are what ThreadSanitizer judges here.
void many_threads() {
  SlotRing ring(3, kBytes);
  std::vector<std::thread> threads;
  for (unsigned id = 1; id <= 4; ++id)
    threads.emplace_back([&ring, id] {
      std::mt19937 random(id);
      for (int turn = 0; turn < 4000; ++turn) {
        const std::int64_t index = ring.acquire(random() % 2 == 0);
        if (index >= 0) {
          const std::uint64_t mark = id * 1000000u + static_cast<unsigned>(turn);
          fill(ring, index, mark);
          CHECK(holds(ring, index, mark));
          if (random() % 3 == 0)
            ring.release(index);
          else
            publish(ring, index, mark);
        }
        if (const auto taken = ring.take()) {
          CHECK(holds(ring, taken->index, number_of(*taken)));
          ring.release(taken->index);
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(ring.free() + ring.ready() == 3);
}

void copy_races_with_writer() {
  SlotRing ring(2, kBytes);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> newest{0};
  std::thread writer([&] {
    for (std::uint64_t seq = 1; seq <= 30000; ++seq) {
      const std::int64_t index = ring.acquire(true);
      fill(ring, index, seq);
      CHECK(publish(ring, index, seq) == seq);
      newest = seq << 1 | static_cast<std::uint64_t>(index);
    }
    done = true;
  });
  std::vector<std::uint8_t> out(kBytes);
  const auto copied = [&] {
    const std::uint64_t seen = newest, seq = seen >> 1;
    const bool whole = ring.copy(seen & 1, seq, out.data(), out.size());
    CHECK(!whole || holds(out.data(), kBytes, seq));
    return whole;
  };
  while (!done) copied();
  writer.join();
  CHECK(copied());
}

// A writer that is killed anywhere leaves whole slots and at most one that somebody has to release.
void killed_writer() {
  std::mt19937 random(4);
  for (int turn = 0; turn < 8; ++turn) {
    SlotRing ring(4, kBytes);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (std::uint64_t seq = 1;; ++seq) {
        const std::int64_t index = ring.acquire(true);
        fill(ring, index, seq);
        publish(ring, index, seq);
      }
    }
    while (ring.dropped() == 0) CHECK(waitpid(child, nullptr, WNOHANG) == 0);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, nullptr, 0) == child);
    CHECK(ring.free() + ring.ready() >= 3);
    Reader reader(ring);
    while (reader.step()) continue;
    reader.release(0);
    for (std::int64_t i = 0; i < 4; ++i) ring.release(i);
    CHECK(ring.free() == 4 && ring.acquire(false) >= 0);
  }
}

}  // namespace

int main() {
  edges();
  copies();
  CHECK(refuses([] { SlotRing ring(0, 1); }) && refuses([] { SlotRing ring(1, 0); }));
  CHECK(refuses([] { SlotRing ring((1 << 16) + 1, 1); }) &&
        refuses([] { SlotRing ring(1, (std::int64_t{1} << 40) + 1); }));
  hostile_attach();
  hostile_peer();
  killed_writer();
  for (const std::int64_t slots : {1, 2, 3, 8, 64})
    for (const std::int64_t bytes : {std::int64_t{8}, kBytes}) {
      SlotRing ring(slots, bytes);
      writer_and_reader(ring, ring, 20000);
      SlotRing mine(slots, bytes), theirs = SlotRing::attach(mine.fd());
      writer_and_reader(mine, theirs, 20000);
    }
  many_threads();
  copy_races_with_writer();
}
