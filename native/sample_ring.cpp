#include "sample_ring.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace mmedge {
namespace {

// A NaN that no arithmetic produces marks an unknown sample, so value and mark are one atomic word.
constexpr std::uint32_t kSilent = 0x7fc0dead;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

std::uint32_t to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace

SampleRing::SampleRing(std::int64_t capacity) : capacity_(capacity) {
  if (capacity < 1) throw std::invalid_argument("capacity must be at least 1 sample");
  slots_ = std::make_unique<std::atomic<std::uint32_t>[]>(static_cast<std::size_t>(capacity));
}

std::atomic<std::uint32_t>& SampleRing::slot(std::int64_t index) const {
  return slots_[static_cast<std::size_t>(index % capacity_)];
}

std::int64_t SampleRing::claim(std::int64_t n) {
  const std::int64_t start = end_.load(std::memory_order_relaxed);
  if (n < 0) throw std::invalid_argument("the number of samples must not be negative");
  if (n > kMax - start) throw std::invalid_argument("the sample index would exceed 64 bits");
  claimed_.store(start + n, std::memory_order_release);
  return start;
}

// Slots are stored with release and loaded with acquire: a reader that sees a new value in a slot
// then also sees the claim made before it. Fences would do the same but ThreadSanitizer is blind to them.
std::int64_t SampleRing::write(const float* samples, std::size_t n) {
  if (n > static_cast<std::size_t>(kMax)) throw std::invalid_argument("too many samples");
  const auto count = static_cast<std::int64_t>(n);
  const std::int64_t start = claim(count), stop = start + count;
  for (std::int64_t i = std::max(start, stop - capacity_); i < stop;) {
    const std::int64_t run = std::min(stop - i, capacity_ - i % capacity_);
    std::atomic<std::uint32_t>* to = &slot(i);
    const float* from = samples + (i - start);
    for (std::int64_t k = 0; k < run; ++k) to[k].store(to_bits(from[k]), std::memory_order_release);
    i += run;
  }
  end_.store(stop, std::memory_order_release);
  return stop;
}

std::int64_t SampleRing::write_silence(std::int64_t n) {
  const std::int64_t start = claim(n), stop = start + n;
  for (std::int64_t i = std::max(start, stop - capacity_); i < stop; ++i)
    slot(i).store(kSilent, std::memory_order_release);
  end_.store(stop, std::memory_order_release);
  return stop;
}

std::int64_t SampleRing::begin() const { return std::max<std::int64_t>(0, end() - capacity_); }

std::int64_t SampleRing::read(std::int64_t end, float* out, std::size_t n) const {
  if (n > static_cast<std::size_t>(kMax) ||
      end < std::numeric_limits<std::int64_t>::min() + static_cast<std::int64_t>(n))
    throw std::invalid_argument("the window starts before the smallest sample index");
  const std::int64_t start = end - static_cast<std::int64_t>(n);
  const std::int64_t written = this->end();
  const std::int64_t stop = std::clamp(written, start, end);
  std::int64_t first = std::clamp(std::max<std::int64_t>(0, written - capacity_), start, stop);
  for (std::int64_t i = first; i < stop;) {
    const std::int64_t run = std::min(stop - i, capacity_ - i % capacity_);
    const std::atomic<std::uint32_t>* from = &slot(i);
    float* to = out + (i - start);
    for (std::int64_t k = 0; k < run; ++k) {
      const std::uint32_t bits = from[k].load(std::memory_order_acquire);
      std::memcpy(to + k, &bits, sizeof bits);
    }
    i += run;
  }
  first = std::clamp(claimed_.load(std::memory_order_acquire) - capacity_, first, stop);
  std::fill(out, out + (first - start), 0.0f);
  std::fill(out + (stop - start), out + n, 0.0f);
  std::int64_t real = stop - first;
  for (float* value = out + (first - start); value != out + (stop - start); ++value) {
    if (to_bits(*value) == kSilent) {
      *value = 0.0f;
      --real;
    }
  }
  return real;
}

}  // namespace mmedge
