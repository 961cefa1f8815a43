#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <thread>

#include "check.hpp"
#include "record_queue.hpp"

namespace {

using mmedge::RecordQueue;
using mmedge::SharedMemory;

// Where things lie in the shared memory: what an attacker knows.
constexpr std::size_t kCapacity = 16, kWritten = 64, kTaken = 128, kBytes = 192;

bool put(RecordQueue& queue, const std::string& record, std::int64_t number = 0) {
  return queue.put(record.data(), record.size(), {number, number + 1, number + 2});
}

void edges() {
  RecordQueue queue(20);
  RecordQueue reader = RecordQueue::attach(queue.fd());
  std::string out;
  CHECK(queue.capacity() == 20 && reader.capacity() == 20 && queue.fd() >= 0 && !reader.take(out));
  CHECK(reader.newest().arrive_ns == 0 && reader.newest().epoch == 0);
  CHECK(!put(queue, std::string(17, 'x')) && put(queue, std::string(16, 'x'), 5) && !put(queue, "", 9));
  CHECK(reader.newest().arrive_ns == 9 && reader.newest().capture_ns == 10 && reader.newest().epoch == 11);
  CHECK(reader.take(out) && out == std::string(16, 'x') && !reader.take(out));
  for (int turn = 0; turn < 100; ++turn) {  // all ways to lie across the end
    CHECK(put(queue, "abc") && put(queue, "") && put(queue, "e"));
    CHECK(reader.take(out) && out == "abc" && reader.take(out) && out.empty() && reader.take(out) &&
          out == "e");
  }
  CHECK(refuses([] { RecordQueue none(0); }) &&
        refuses([] { RecordQueue much((std::int64_t{1} << 40) + 1); }));
}

void hostile_attach() {
  RecordQueue queue(100);
  const SharedMemory whole = SharedMemory::attach(queue.fd());
  auto* const bytes = static_cast<unsigned char*>(whole.data());
  for (const std::size_t at : {std::size_t{0}, std::size_t{8}, kCapacity}) {
    std::int64_t good;
    std::memcpy(&good, bytes + at, 8);
    for (const std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, good + 1, std::int64_t{1} << 40,
                                   std::numeric_limits<std::int64_t>::min()}) {
      std::memcpy(bytes + at, &bad, 8);
      CHECK(refuses([&] { RecordQueue::attach(queue.fd()); }));
    }
    std::memcpy(bytes + at, &good, 8);
  }
  const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK(ftruncate(fd, 100) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  CHECK(refuses([fd] { RecordQueue::attach(fd); }));
  close(fd);
}

// A broken process may write anything anywhere at any time; nothing but wrong records or an error may come of
// it.
void hostile_peer() {
  RecordQueue queue(256);
  RecordQueue reader = RecordQueue::attach(queue.fd());
  const SharedMemory peer = SharedMemory::attach(queue.fd());
  auto* const bytes = static_cast<unsigned char*>(peer.data());
  std::string out;
  CHECK(put(queue, "abc"));
  const std::uint32_t absurd = 0xffffffff;
  std::memcpy(bytes + kBytes, &absurd, sizeof absurd);
  CHECK(refuses([&] { reader.take(out); }) && refuses([&] { reader.take(out); }));
  const std::uint64_t far = std::uint64_t{1} << 63;
  std::memcpy(bytes + kTaken, &far, sizeof far);
  CHECK(!put(queue, "abc"));
  std::mt19937 random(1);
  for (int turn = 0; turn < 20000; ++turn) {
    const std::size_t where[] = {kWritten + random() % 8, kTaken + random() % 8, kBytes + random() % 256};
    bytes[where[random() % 3]] = static_cast<unsigned char>(random());
    put(queue, std::string(random() % 300, 'x'));
    refuses([&] {
      if (reader.take(out)) CHECK(out.size() <= 256);
    });
  }
}

std::string record_of(std::uint64_t number) {
  return std::string(number % 37, static_cast<char>(number)) +
         std::string(reinterpret_cast<const char*>(&number), sizeof number);
}

// The plain accesses to the bytes are what ThreadSanitizer judges here.
void writer_and_reader(RecordQueue& to, RecordQueue& from, std::uint64_t turns) {
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (std::uint64_t number = 1; number <= turns;)
      if (put(to, record_of(number), static_cast<std::int64_t>(number)))
        ++number;
      else
        std::this_thread::yield();
  });
  std::thread judge([&] {
    std::int64_t before = 0;
    while (!done) {
      const std::int64_t now = from.newest().arrive_ns;
      CHECK(now >= before);
      before = now;
    }
  });
  std::string out;
  for (std::uint64_t number = 1; number <= turns;)
    if (from.take(out))
      CHECK(out == record_of(number++));
    else
      std::this_thread::yield();
  done = true;
  writer.join();
  judge.join();
  CHECK(!from.take(out) && from.newest().arrive_ns == static_cast<std::int64_t>(turns));
}

// A writer that is killed anywhere leaves whole records.
void killed_writer() {
  for (int turn = 0; turn < 8; ++turn) {
    RecordQueue queue(1 << 14);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (std::uint64_t number = 1;;)
        if (put(queue, record_of(number))) ++number;
    }
    RecordQueue reader = RecordQueue::attach(queue.fd());
    std::string out;
    std::uint64_t number = 1;
    while (number < 2000)
      if (reader.take(out)) CHECK(out == record_of(number++));
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, nullptr, 0) == child);
    while (reader.take(out)) CHECK(out == record_of(number++));
  }
}

}  // namespace

int main() {
  edges();
  hostile_attach();
  hostile_peer();
  killed_writer();
  for (const std::int64_t capacity : {64, 100, 4096}) {
    RecordQueue queue(capacity);
    RecordQueue reader = RecordQueue::attach(queue.fd());
    writer_and_reader(queue, reader, 50000);
  }
}
