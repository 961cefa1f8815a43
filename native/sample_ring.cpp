#include "sample_ring.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>

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

constexpr std::uint64_t kMagic = 0x706d617365676d6d;  // "mmgesamp"
constexpr std::uint64_t kVersion = 1;
constexpr std::int64_t kMaxCapacity = std::int64_t{1} << 56;

static_assert(std::atomic<std::int64_t>::is_always_lock_free &&
                  std::atomic<std::uint32_t>::is_always_lock_free,
              "a lock would lie in one process only");

void require(bool fine, const char* message) {
  if (!fine) throw std::invalid_argument(message);
}

// Indices never go back, whatever a broken process left in shared memory.
std::int64_t index_of(const std::atomic<std::int64_t>& shared, std::memory_order order) {
  return std::max<std::int64_t>(0, shared.load(order));
}

}  // namespace

struct alignas(64) SampleRing::Header {
  Shape shape;
  alignas(64) std::atomic<std::int64_t> claimed;
  std::atomic<std::int64_t> end;
};

SampleRing::SampleRing(std::int64_t capacity) : shape_(shape_of(capacity)) {
  own_ = std::make_unique<Line[]>((total_bytes(shape_) + sizeof(Line) - 1) / sizeof(Line));
  header_ = reinterpret_cast<Header*>(own_.get());
  fill();
}

SampleRing::SampleRing(const Shape& shape, SharedMemory memory)
    : shape_(shape), shared_(std::move(memory)), header_(static_cast<Header*>(shared_.data())) {}

SampleRing SampleRing::shared(std::int64_t capacity) {
  const Shape shape = shape_of(capacity);
  SampleRing ring(shape, SharedMemory::create(total_bytes(shape)));
  ring.fill();
  return ring;
}

SampleRing SampleRing::attach(int fd) {
  SharedMemory memory = SharedMemory::attach(fd);
  Shape shape{};
  require(memory.size() >= sizeof(Header), "the shared memory is too small for a sample ring");
  std::memcpy(&shape, memory.data(), sizeof shape);
  require(shape.magic == kMagic, "the shared memory holds no sample ring");
  require(shape.version == kVersion, "the sample ring is of another version");
  require(memory.size() == total_bytes(shape_of(shape.capacity)),
          "the shared memory is not as large as its samples");
  return SampleRing(shape, std::move(memory));
}

SampleRing::Shape SampleRing::shape_of(std::int64_t capacity) {
  require(capacity >= 1, "capacity must be at least 1 sample");
  require(capacity <= kMaxCapacity, "capacity must be at most 2**56 samples");
  return {kMagic, kVersion, capacity};
}

std::size_t SampleRing::total_bytes(const Shape& shape) {
  return sizeof(Header) + static_cast<std::size_t>(shape.capacity) * sizeof(std::atomic<std::uint32_t>);
}

void SampleRing::fill() {
  new (header_) Header{shape_, {0}, {0}};
  std::uninitialized_value_construct_n(&slot(0), shape_.capacity);
}

std::int64_t SampleRing::end() const { return index_of(header_->end, std::memory_order_acquire); }

std::atomic<std::uint32_t>& SampleRing::slot(std::int64_t index) const {
  return reinterpret_cast<std::atomic<std::uint32_t>*>(header_ + 1)[index % shape_.capacity];
}

// A writer that died had claimed more than it published; that stays claimed until it is overwritten.
std::int64_t SampleRing::claim(std::int64_t n) {
  const std::int64_t start = index_of(header_->end, std::memory_order_relaxed);
  if (n < 0) throw std::invalid_argument("the number of samples must not be negative");
  if (n > kMax - start) throw std::invalid_argument("the sample index would exceed 64 bits");
  const std::int64_t claimed = index_of(header_->claimed, std::memory_order_relaxed);
  header_->claimed.store(std::max(claimed, start + n), std::memory_order_release);
  return start;
}

// Slots are stored with release and loaded with acquire: a reader that sees a new value in a slot
// then also sees the claim made before it. Fences would do the same but ThreadSanitizer is blind to them.
std::int64_t SampleRing::write(const float* samples, std::size_t n) {
  if (n > static_cast<std::size_t>(kMax)) throw std::invalid_argument("too many samples");
  const auto count = static_cast<std::int64_t>(n);
  const std::int64_t start = claim(count), stop = start + count;
  for (std::int64_t i = std::max(start, stop - shape_.capacity); i < stop;) {
    const std::int64_t run = std::min(stop - i, shape_.capacity - i % shape_.capacity);
    std::atomic<std::uint32_t>* to = &slot(i);
    const float* from = samples + (i - start);
    for (std::int64_t k = 0; k < run; ++k) to[k].store(to_bits(from[k]), std::memory_order_release);
    i += run;
  }
  header_->end.store(stop, std::memory_order_release);
  return stop;
}

std::int64_t SampleRing::write_silence(std::int64_t n) {
  const std::int64_t start = claim(n), stop = start + n;
  for (std::int64_t i = std::max(start, stop - shape_.capacity); i < stop; ++i)
    slot(i).store(kSilent, std::memory_order_release);
  header_->end.store(stop, std::memory_order_release);
  return stop;
}

std::int64_t SampleRing::begin() const { return std::max<std::int64_t>(0, end() - shape_.capacity); }

std::int64_t SampleRing::read(std::int64_t end, float* out, std::size_t n) const {
  if (n > static_cast<std::size_t>(kMax) ||
      end < std::numeric_limits<std::int64_t>::min() + static_cast<std::int64_t>(n))
    throw std::invalid_argument("the window starts before the smallest sample index");
  const std::int64_t start = end - static_cast<std::int64_t>(n);
  const std::int64_t written = this->end();
  const std::int64_t stop = std::clamp(written, start, end);
  std::int64_t first = std::clamp(std::max<std::int64_t>(0, written - shape_.capacity), start, stop);
  for (std::int64_t i = first; i < stop;) {
    const std::int64_t run = std::min(stop - i, shape_.capacity - i % shape_.capacity);
    const std::atomic<std::uint32_t>* from = &slot(i);
    float* to = out + (i - start);
    for (std::int64_t k = 0; k < run; ++k) {
      const std::uint32_t bits = from[k].load(std::memory_order_acquire);
      std::memcpy(to + k, &bits, sizeof bits);
    }
    i += run;
  }
  first = std::clamp(index_of(header_->claimed, std::memory_order_acquire) - shape_.capacity, first, stop);
  std::fill(out, out + (first - start), 0.0f);
  std::fill(out + (stop - start), out + n, 0.0f);
  // Without a branch, so that it is a vector loop: silence is seldom, and looking for it takes longer than
  // copying.
  std::int64_t real = stop - first;
  for (float* value = out + (first - start); value != out + (stop - start); ++value) {
    const std::uint32_t bits = to_bits(*value), kept = bits == kSilent ? 0 : bits;
    std::memcpy(value, &kept, sizeof kept);
    real -= bits == kSilent;
  }
  return real;
}

}  // namespace mmedge
