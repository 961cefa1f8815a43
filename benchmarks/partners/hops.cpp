// Two bare hops: what handing a frame from a camera's process to a runtime's, and its answer to a user's,
// costs at least. Three processes, one shared ring, one eventfd a hop; nobody spins. The frame is copied
// once, into the ring.
//
//   hops SECONDS     prints a line a frame: microseconds from before the copy until the user's process has
//   the answer
//
// Built by: c++ -O2 -std=c++17 -o hops hops.cpp
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

namespace {

constexpr size_t kFrame = 640 * 480 * 3;  // bytes: VGA in three colours, 0.9 MB
constexpr size_t kSlots = 8, kSources = 16;
constexpr int64_t kPeriodNs = 1'000'000'000 / 30;
constexpr int64_t kSettle = 15;  // frames that are not told: the first ones meet cold pages

struct Answer {
  int64_t begun_ns;
  uint64_t sum;
};

struct Shared {
  std::atomic<uint64_t> frames, answers;  // how many were written
  std::atomic<bool> over;
  int64_t begun_ns[kSlots];
  Answer answer[kSlots];
  alignas(64) uint8_t frame[kSlots][kFrame];
};

int64_t Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * int64_t{1'000'000'000} + t.tv_nsec;
}

void SleepUntil(int64_t ns) {
  timespec t{ns / 1'000'000'000, ns % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) != 0) {
  }
}

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

void Wake(int event) {
  const uint64_t one = 1;
  if (write(event, &one, sizeof one) != sizeof one) Fail("write");
}

void Wait(int event) {
  uint64_t count;
  if (read(event, &count, sizeof count) != sizeof count) Fail("read");
}

// The runtime: takes the newest frame where it lies and looks at a byte of each of its rows.
void Runtime(Shared& shared, int frames, int answers) {
  uint64_t number = 0;
  for (;;) {
    Wait(frames);
    if (shared.over.load()) break;
    const uint64_t slot = (shared.frames.load(std::memory_order_acquire) - 1) % kSlots;
    uint64_t sum = 0;
    for (size_t at = 0; at < kFrame; at += 640 * 3) sum += shared.frame[slot][at];
    shared.answer[number % kSlots] = {shared.begun_ns[slot], sum};
    shared.answers.store(++number, std::memory_order_release);
    Wake(answers);
  }
  Wake(answers);
}

// The user: takes each answer and tells how old it is.
void User(Shared& shared, int answers, int64_t skipped) {
  uint64_t read = 0;
  for (;;) {
    Wait(answers);
    const uint64_t written = shared.answers.load(std::memory_order_acquire);
    for (; read < written; ++read) {
      const int64_t took_ns = Now() - shared.answer[read % kSlots].begun_ns;
      if (static_cast<int64_t>(read) >= skipped) std::printf("%.1f\n", static_cast<double>(took_ns) / 1e3);
    }
    if (shared.over.load()) break;
  }
  std::fflush(stdout);
}

template <typename Function>
pid_t Fork(Function run) {
  const pid_t parent = getpid(), pid = fork();
  if (pid < 0) Fail("fork");
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) std::_Exit(1);  // it died before it could be told of
  run();
  std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc == 2 ? std::atof(argv[1]) : 0;
  if (!(seconds > 0 && seconds <= 3600)) {
    std::fprintf(stderr, "usage: hops SECONDS\n");
    return 2;
  }
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const int frames = eventfd(0, EFD_CLOEXEC), answers = eventfd(0, EFD_CLOEXEC);
  if (memory == MAP_FAILED || frames < 0 || answers < 0) Fail("hops");
  Shared& shared = *static_cast<Shared*>(memory);  // zeros are a valid beginning
  const pid_t runtime = Fork([&] { Runtime(shared, frames, answers); });
  const pid_t user = Fork([&] { User(shared, answers, kSettle); });

  // The camera. More pictures than a cache holds: a frame is not hot when it is delivered.
  std::vector<std::vector<uint8_t>> pictures;
  for (size_t k = 0; k < kSources; ++k) pictures.emplace_back(kFrame, static_cast<uint8_t>(k));
  const int64_t count = kSettle + static_cast<int64_t>(seconds * 30), begin_ns = Now();
  for (int64_t k = 0; k < count; ++k) {
    SleepUntil(begin_ns + (k + 1) * kPeriodNs);
    const size_t slot = static_cast<size_t>(k) % kSlots;
    shared.begun_ns[slot] = Now();
    std::memcpy(shared.frame[slot], pictures[static_cast<size_t>(k) % kSources].data(), kFrame);
    shared.frames.store(static_cast<uint64_t>(k) + 1, std::memory_order_release);
    Wake(frames);
  }
  SleepUntil(Now() + 200'000'000);
  shared.over.store(true);
  Wake(frames);
  for (const pid_t pid : {runtime, user}) {
    int status = 0;
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
      Fail("a process ended badly");
  }
  return 0;
}
