// Fixed slots in memory that two processes share; each slot has one owner at any time, and nobody waits.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "shared_memory.hpp"

namespace mmedge {

// FREE -acquire-> WRITING -publish-> READY -take-> READING -release-> FREE, READY -acquire(steal)-> WRITING,
// and WRITING -hold-> READING.
//
// The state and the sequence number of what a slot holds are one atomic word, and each change compares the
// whole word: who saw READY 5 cannot take the slot when it was stolen meanwhile and is READY 21. Sequence
// numbers start at 1; 0 means that a slot holds nothing whole.
//
// The other process may have died at any instruction or write anything: sizes are read once, when attached,
// and nothing that is read later is used as an address or a length without a check. A slot whose owner died
// stays its until somebody else releases it.
class SlotRing {
 public:
  static constexpr std::size_t kMaxHeader = 1024;

  struct Taken {
    std::int64_t index;
    std::uint64_t seq;
    std::string header;
  };

  SlotRing(std::int64_t slots, std::int64_t slot_bytes);
  // Maps the ring of another process (or of this one); the caller keeps its `fd`. Throws
  // std::invalid_argument for anything that is not a whole ring.
  static SlotRing attach(int fd);
  // The same for who only looks at data and copies: anything that would change the ring is a SIGSEGV.
  static SlotRing watch(int fd);

  // The FREE slot whose data is the oldest becomes WRITING; with `steal`, if none is FREE, the oldest READY
  // one does and counts as dropped. -1 if there is none.
  std::int64_t acquire(bool steal);
  // WRITING -> READY; returns the sequence number. Slots are taken in the order in which one thread
  // published.
  std::uint64_t publish(std::int64_t index, const char* header, std::size_t n);
  // WRITING -> READING: what its writer keeps for itself, and others may copy by the sequence number that it
  // returns; 0 where the slot was given back.
  std::uint64_t hold(std::int64_t index);
  // The READY slot of lowest sequence number -> READING.
  std::optional<Taken> take();
  // READY with `seq` -> READING; false when the slot holds something else by now.
  bool claim(std::int64_t index, std::uint64_t seq);
  // READING or WRITING -> FREE; other slots are left alone. What was read keeps its sequence number.
  void release(std::int64_t index);
  // Copies the first `n` bytes of a slot that anybody may own, and tells whether they are those of `seq`.
  bool copy(std::int64_t index, std::uint64_t seq, std::uint8_t* out, std::size_t n) const;
  // True while a slot that anybody may own still holds `seq`: all that was read of its data before is right.
  bool holds(std::int64_t index, std::uint64_t seq) const;

  std::uint8_t* data(std::int64_t index) const;
  std::int64_t slots() const { return shape_.slots; }
  std::int64_t slot_bytes() const { return shape_.slot_bytes; }
  int fd() const { return memory_.fd(); }
  std::uint64_t dropped() const;
  std::int64_t free() const { return count(State::kFree); }
  std::int64_t ready() const { return count(State::kReady); }

 private:
  enum class State : std::uint64_t { kFree, kWriting, kReady, kReading };
  struct Shape {
    std::uint64_t magic;
    std::uint64_t version;
    std::int64_t slots;
    std::int64_t slot_bytes;
  };
  struct Found {
    std::int64_t index;
    std::uint64_t word;
  };
  struct Header;
  struct Slot;

  SlotRing(const Shape& shape, SharedMemory memory) : memory_(std::move(memory)), shape_(shape) {}
  static SlotRing map(int fd, bool writable);
  static std::size_t payload_offset(std::int64_t slots);
  static std::size_t total_bytes(const Shape& shape);
  static State state_of(std::uint64_t word) { return static_cast<State>(word & 3); }
  static std::uint64_t seq_of(std::uint64_t word) { return word >> 2; }
  static std::uint64_t word_of(std::uint64_t seq, State state) {
    return seq << 2 | static_cast<std::uint64_t>(state);
  }
  static bool whole(std::uint64_t word, std::uint64_t seq) {
    return seq != 0 && seq_of(word) == seq && state_of(word) != State::kWriting;
  }

  Header& header() const;
  Slot& slot(std::int64_t index) const;
  std::optional<Found> lowest(State state) const;
  bool change(const Found& found, std::uint64_t to);
  std::int64_t count(State state) const;

  SharedMemory memory_;
  Shape shape_;
};

}  // namespace mmedge
