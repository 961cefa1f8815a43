#include "record_queue.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace mmedge {
namespace {

constexpr std::uint64_t kMagic = 0x6463657265676d6d;  // "mmgerecd"
constexpr std::uint64_t kVersion = 1;
constexpr std::int64_t kMaxCapacity = std::int64_t{1} << 40;
using Length = std::uint32_t;  // before each record

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "a lock would lie in one process only");

void require(bool fine, const char* message) {
  if (!fine) throw std::invalid_argument(message);
}

}  // namespace

struct alignas(64) RecordQueue::Header {
  Shape shape;
  alignas(64) std::atomic<std::uint64_t> written;
  std::atomic<std::int64_t> arrive_ns, capture_ns, epoch;
  alignas(64) std::atomic<std::uint64_t> taken;
};

RecordQueue::RecordQueue(std::int64_t capacity)
    : RecordQueue({kMagic, kVersion, capacity},
                  SharedMemory::create(total_bytes({kMagic, kVersion, capacity}))) {
  new (memory_.data()) Header{shape_, {0}, {0}, {0}, {0}, {0}};
}

RecordQueue::RecordQueue(const Shape& shape, SharedMemory memory)
    : memory_(std::move(memory)), shape_(shape) {}

RecordQueue RecordQueue::attach(int fd) {
  SharedMemory memory = SharedMemory::attach(fd);
  Shape shape{};
  require(memory.size() >= sizeof(Header), "the shared memory is too small for a queue of records");
  std::memcpy(&shape, memory.data(), sizeof shape);
  require(shape.magic == kMagic, "the shared memory holds no queue of records");
  require(shape.version == kVersion, "the queue of records is of another version");
  require(memory.size() == total_bytes(shape), "the shared memory is not as large as its records");
  RecordQueue queue(shape, std::move(memory));
  queue.own_ = queue.header().taken.load(std::memory_order_relaxed);
  return queue;
}

std::size_t RecordQueue::total_bytes(const Shape& shape) {
  require(shape.capacity >= 1 && shape.capacity <= kMaxCapacity, "capacity must be 1 to 2**40 bytes");
  return sizeof(Header) + static_cast<std::size_t>(shape.capacity);
}

RecordQueue::Header& RecordQueue::header() const { return *static_cast<Header*>(memory_.data()); }

void RecordQueue::write(std::uint64_t at, const char* from, std::size_t n) {
  char* const bytes = reinterpret_cast<char*>(&header() + 1);
  const auto capacity = static_cast<std::size_t>(shape_.capacity),
             begin = static_cast<std::size_t>(at % capacity);
  const std::size_t first = std::min(n, capacity - begin);
  std::memcpy(bytes + begin, from, first);
  std::memcpy(bytes, from + first, n - first);
}

void RecordQueue::read(std::uint64_t at, char* to, std::size_t n) const {
  const char* const bytes = reinterpret_cast<const char*>(&header() + 1);
  const auto capacity = static_cast<std::size_t>(shape_.capacity),
             begin = static_cast<std::size_t>(at % capacity);
  const std::size_t first = std::min(n, capacity - begin);
  std::memcpy(to, bytes + begin, first);
  std::memcpy(to + first, bytes, n - first);
}

bool RecordQueue::put(const char* data, std::size_t n, const Newest& newest) {
  Header& shared = header();
  // Told of what is refused, too: a reader that is busy must not make its writer look dead.
  shared.capture_ns.store(newest.capture_ns, std::memory_order_relaxed);
  shared.epoch.store(newest.epoch, std::memory_order_relaxed);
  shared.arrive_ns.store(newest.arrive_ns, std::memory_order_release);
  const auto capacity = static_cast<std::uint64_t>(shape_.capacity);
  const std::uint64_t used = own_ - shared.taken.load(std::memory_order_acquire);
  // A reader that writes nonsense has "taken" more than there was: then there is no room, either.
  if (used > capacity || sizeof(Length) > capacity - used || n > capacity - used - sizeof(Length) ||
      n > UINT32_MAX)
    return false;
  const auto length = static_cast<Length>(n);
  write(own_, reinterpret_cast<const char*>(&length), sizeof length);
  if (n > 0) write(own_ + sizeof length, data, n);
  own_ += sizeof length + n;
  shared.written.store(own_, std::memory_order_release);
  return true;
}

bool RecordQueue::take(std::string& out) {
  const std::uint64_t there = header().written.load(std::memory_order_acquire) - own_;
  if (there == 0) return false;
  Length length = 0;
  require(there <= static_cast<std::uint64_t>(shape_.capacity) && there >= sizeof length,
          "a queue of records is damaged: it cannot hold what it says");
  read(own_, reinterpret_cast<char*>(&length), sizeof length);
  require(length <= there - sizeof length,
          "a queue of records is damaged: a record is longer than it can be");
  out.resize(length);
  if (length > 0) read(own_ + sizeof length, out.data(), length);
  own_ += sizeof length + length;
  header().taken.store(own_, std::memory_order_release);
  return true;
}

Newest RecordQueue::newest() const {
  const Header& shared = header();
  const std::int64_t arrive_ns = shared.arrive_ns.load(std::memory_order_acquire);
  return {arrive_ns, shared.capture_ns.load(std::memory_order_relaxed),
          shared.epoch.load(std::memory_order_relaxed)};
}

}  // namespace mmedge
