#include "slot_ring.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

namespace mmedge {
namespace {

constexpr std::uint64_t kMagic = 0x746f6c7365676d6d;  // "mmgeslot"
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kLine = 64;
constexpr std::size_t kPage = 4096;
// Products of these fit into 64 bits by far.
constexpr std::int64_t kMaxSlots = std::int64_t{1} << 16;
constexpr std::int64_t kMaxSlotBytes = std::int64_t{1} << 40;
constexpr std::uint64_t kMaxSeq = (std::uint64_t{1} << 62) - 1;

static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
                  std::atomic<std::uint32_t>::is_always_lock_free,
              "a lock would lie in one process only");

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

void require(bool fine, const char* message) {
  if (!fine) throw std::invalid_argument(message);
}

// ThreadSanitizer cannot see what the next three are right by: fences. They stay out of its sight, and a copy
// that raced is thrown away. The words are atomic so that the compiler neither repeats nor tears a load.

// Nothing is stored to a slot before its word says WRITING. The acquire of a compare-and-swap alone does not
// hold later stores back from its own store.
__attribute__((no_sanitize("thread"))) void order_stores() { __atomic_thread_fence(__ATOMIC_RELEASE); }

// What was read before stays before the loads that follow.
__attribute__((no_sanitize("thread"))) void order_loads() { __atomic_thread_fence(__ATOMIC_ACQUIRE); }

__attribute__((no_sanitize("thread"))) void copy_racing(const std::uint8_t* from, std::uint8_t* out,
                                                        std::size_t n) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const std::uint64_t word =
        __atomic_load_n(reinterpret_cast<const std::uint64_t*>(from + i), __ATOMIC_RELAXED);
    __builtin_memcpy(out + i, &word, 8);
  }
  for (; i < n; ++i) out[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
}

}  // namespace

struct alignas(kLine) SlotRing::Header {
  Shape shape;
  alignas(kLine) std::atomic<std::uint64_t> published;
  alignas(kLine) std::atomic<std::uint64_t> dropped;
};

struct alignas(kLine) SlotRing::Slot {
  std::atomic<std::uint64_t> word;
  std::atomic<std::uint32_t> header_length;
  char header[kMaxHeader];
};

SlotRing::SlotRing(std::int64_t slots, std::int64_t slot_bytes)
    : SlotRing({kMagic, kVersion, slots, slot_bytes},
               SharedMemory::create(total_bytes({kMagic, kVersion, slots, slot_bytes}))) {
  new (memory_.data()) Header{shape_, {0}, {0}};
  for (std::int64_t i = 0; i < slots; ++i) new (&slot(i)) Slot{};
}

SlotRing SlotRing::attach(int fd) { return map(fd, true); }

SlotRing SlotRing::watch(int fd) { return map(fd, false); }

SlotRing SlotRing::map(int fd, bool writable) {
  SharedMemory memory = SharedMemory::attach(fd, writable);
  Shape shape{};
  require(memory.size() >= sizeof(Header), "the shared memory is too small for a slot ring");
  std::memcpy(&shape, memory.data(), sizeof shape);
  require(shape.magic == kMagic, "the shared memory holds no slot ring");
  require(shape.version == kVersion, "the slot ring is of another version");
  require(memory.size() == total_bytes(shape), "the shared memory is not as large as its slots");
  return SlotRing(shape, std::move(memory));
}

std::size_t SlotRing::payload_offset(std::int64_t slots) {
  return round_up(sizeof(Header) + static_cast<std::size_t>(slots) * sizeof(Slot), kPage);
}

std::size_t SlotRing::total_bytes(const Shape& shape) {
  require(shape.slots >= 1 && shape.slots <= kMaxSlots, "slots must be 1 to 65536");
  require(shape.slot_bytes >= 1 && shape.slot_bytes <= kMaxSlotBytes, "slot_bytes must be 1 to 2**40");
  return payload_offset(shape.slots) +
         static_cast<std::size_t>(shape.slots) * round_up(static_cast<std::size_t>(shape.slot_bytes), kLine);
}

SlotRing::Header& SlotRing::header() const { return *static_cast<Header*>(memory_.data()); }

SlotRing::Slot& SlotRing::slot(std::int64_t index) const {
  if (index < 0 || index >= shape_.slots) throw std::out_of_range("the ring has no such slot");
  return *(reinterpret_cast<Slot*>(&header() + 1) + index);
}

std::uint8_t* SlotRing::data(std::int64_t index) const {
  slot(index);
  return static_cast<std::uint8_t*>(memory_.data()) + payload_offset(shape_.slots) +
         static_cast<std::size_t>(index) * round_up(static_cast<std::size_t>(shape_.slot_bytes), kLine);
}

std::optional<SlotRing::Found> SlotRing::lowest(State state) const {
  std::optional<Found> found;
  for (std::int64_t i = 0; i < shape_.slots; ++i) {
    const std::uint64_t word = slot(i).word.load(std::memory_order_acquire);
    if (state_of(word) == state && (!found || word < found->word)) found = {i, word};
  }
  return found;
}

bool SlotRing::change(const Found& found, std::uint64_t to) {
  std::uint64_t expected = found.word;
  return slot(found.index).word.compare_exchange_strong(expected, to, std::memory_order_acq_rel);
}

// A slot that is being written holds nothing whole, so it has no sequence number: if it is released as it is,
// no `copy` of what it held before may succeed.
std::int64_t SlotRing::acquire(bool steal) {
  for (;;) {
    std::optional<Found> found = lowest(State::kFree);
    const bool stolen = !found && steal;
    if (stolen) found = lowest(State::kReady);
    if (!found) return -1;
    if (!change(*found, word_of(0, State::kWriting))) continue;
    order_stores();
    if (stolen) header().dropped.fetch_add(1, std::memory_order_relaxed);
    return found->index;
  }
}

std::uint64_t SlotRing::publish(std::int64_t index, const char* text, std::size_t n) {
  Slot& to = slot(index);
  require(n <= kMaxHeader, "the header of a slot must not be longer than 1024 bytes");
  const std::uint64_t word = to.word.load(std::memory_order_relaxed);
  require(state_of(word) == State::kWriting, "the slot is not being written");
  if (n > 0) std::memcpy(to.header, text, n);
  to.header_length.store(static_cast<std::uint32_t>(n), std::memory_order_relaxed);
  const std::uint64_t seq = (header().published.fetch_add(1, std::memory_order_relaxed) + 1) & kMaxSeq;
  require(change({index, word}, word_of(seq, State::kReady)), "the slot was released while it was published");
  return seq;
}

std::uint64_t SlotRing::hold(std::int64_t index) {
  const std::uint64_t word = slot(index).word.load(std::memory_order_relaxed);
  if (state_of(word) == State::kReading) return seq_of(word);
  if (state_of(word) != State::kWriting) return 0;
  const std::uint64_t seq = (header().published.fetch_add(1, std::memory_order_relaxed) + 1) & kMaxSeq;
  return change({index, word}, word_of(seq, State::kReading)) ? seq : 0;
}

// A scan may see a slot before and another one after they were published. All that is older than the oldest
// READY slot of one scan was published before the next scan, which therefore finds the true oldest.
std::optional<SlotRing::Taken> SlotRing::take() {
  for (std::optional<Found> seen = lowest(State::kReady); seen;) {
    const std::optional<Found> found = lowest(State::kReady);
    if (found && found->word <= seen->word && change(*found, word_of(seq_of(found->word), State::kReading))) {
      const Slot& from = slot(found->index);
      const std::size_t n =
          std::min<std::size_t>(from.header_length.load(std::memory_order_relaxed), kMaxHeader);
      return Taken{found->index, seq_of(found->word), std::string(from.header, n)};
    }
    seen = found;
  }
  return std::nullopt;
}

bool SlotRing::claim(std::int64_t index, std::uint64_t seq) {
  slot(index);
  return change({index, word_of(seq & kMaxSeq, State::kReady)}, word_of(seq & kMaxSeq, State::kReading));
}

void SlotRing::release(std::int64_t index) {
  const std::uint64_t word = slot(index).word.load(std::memory_order_relaxed);
  const State state = state_of(word);
  if (state == State::kReading || state == State::kWriting)
    change({index, word}, word_of(seq_of(word), State::kFree));
}

bool SlotRing::copy(std::int64_t index, std::uint64_t seq, std::uint8_t* out, std::size_t n) const {
  const std::atomic<std::uint64_t>& word = slot(index).word;
  require(n <= static_cast<std::size_t>(shape_.slot_bytes), "a slot holds fewer bytes than that");
  if (!whole(word.load(std::memory_order_acquire), seq)) return false;
  copy_racing(data(index), out, n);
  order_loads();
  return whole(word.load(std::memory_order_relaxed), seq);
}

// The acquire is for a reader that asks before it reads, too.
bool SlotRing::holds(std::int64_t index, std::uint64_t seq) const {
  order_loads();
  return whole(slot(index).word.load(std::memory_order_acquire), seq);
}

std::uint64_t SlotRing::dropped() const { return header().dropped.load(std::memory_order_relaxed); }

std::int64_t SlotRing::count(State state) const {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < shape_.slots; ++i)
    n += state_of(slot(i).word.load(std::memory_order_relaxed)) == state;
  return n;
}

}  // namespace mmedge
