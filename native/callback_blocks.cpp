#include "callback_blocks.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "clock/monotonic.hpp"

namespace mmedge {
namespace {

constexpr unsigned long kInputOverflow = 2;  // paInputOverflow
constexpr int kContinue = 0;                 // paContinue
constexpr std::uint64_t kOne = 1;
constexpr std::int64_t kMsNs = 1'000'000;

}  // namespace

CallbackBlocks::CallbackBlocks(std::int64_t blocks, std::int64_t frames, std::int64_t channels)
    : frames_(frames), channels_(channels) {
  if (blocks < 1 || frames < 1 || channels < 1)
    throw std::invalid_argument("blocks, frames and channels must be at least 1");
  blocks_.resize(static_cast<std::size_t>(blocks));
  samples_.resize(static_cast<std::size_t>(blocks * frames * channels));
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

CallbackBlocks::~CallbackBlocks() { ::close(wake_); }

int CallbackBlocks::deliver(const void* input, void*, unsigned long frames, const void* times,
                            unsigned long flags, void* self) {
  // PaStreamCallbackTimeInfo: inputBufferAdcTime, currentTime, outputBufferDacTime.
  if (input != nullptr && times != nullptr)
    static_cast<CallbackBlocks*>(self)->add(static_cast<const float*>(input),
                                            static_cast<std::int64_t>(frames),
                                            static_cast<const double*>(times), (flags & kInputOverflow) != 0);
  return kContinue;
}

void CallbackBlocks::add(const float* samples, std::int64_t frames, const double* times, bool overflow) {
  const std::int64_t entry_ns = now_ns();
  counted_ += frames;
  if (overflow) overflows_.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t number = written_.load(std::memory_order_relaxed);
  if (number - read_.load(std::memory_order_acquire) >= blocks_.size() || frames > frames_) return;
  blocks_[place(number)] = {frames, counted_, entry_ns, times[0], times[1], overflow};
  std::copy_n(samples, frames * channels_,
              samples_.begin() + static_cast<std::ptrdiff_t>(place(number)) * frames_ * channels_);
  written_.store(number + 1, std::memory_order_release);
  wake();
}

void CallbackBlocks::wake() const { [[maybe_unused]] const ssize_t n = write(wake_, &kOne, sizeof kOne); }

void CallbackBlocks::wait(int timeout_ms) const {
  if (front() != nullptr || closed()) return;
  pollfd ready{wake_, POLLIN, 0};
  poll(&ready, 1, timeout_ms);
  std::uint64_t seen = 0;
  [[maybe_unused]] const ssize_t n = read(wake_, &seen, sizeof seen);
}

const CallbackBlocks::Block* CallbackBlocks::next(int timeout_ms) const {
  const std::int64_t until_ns = now_ns() + timeout_ms * kMsNs;
  while (!closed()) {
    if (const Block* block = front()) return block;
    const std::int64_t left_ms = (until_ns - now_ns() + kMsNs - 1) / kMsNs;
    if (left_ms <= 0) return nullptr;
    wait(static_cast<int>(left_ms));
  }
  return nullptr;
}

const CallbackBlocks::Block* CallbackBlocks::front() const {
  const std::uint64_t number = read_.load(std::memory_order_relaxed);
  return number == written_.load(std::memory_order_acquire) ? nullptr : &blocks_[place(number)];
}

void CallbackBlocks::copy_planar(float* out) const {
  const std::size_t at = place(read_.load(std::memory_order_relaxed));
  const float* from = samples_.data() + at * static_cast<std::size_t>(frames_ * channels_);
  const std::int64_t frames = blocks_[at].frames;
  for (std::int64_t channel = 0; channel < channels_; ++channel)
    for (std::int64_t i = 0; i < frames; ++i) *out++ = from[i * channels_ + channel];
}

void CallbackBlocks::pop() { read_.fetch_add(1, std::memory_order_release); }

void CallbackBlocks::close() {
  closed_.store(true, std::memory_order_release);
  wake();
}

}  // namespace mmedge
