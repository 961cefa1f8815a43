// Records of bytes in memory that two processes share, first in, first out: one writer, one reader, no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "shared_memory.hpp"

namespace mmedge {

// What the newest record is about: for whoever judges the writer, whether the record was taken or not.
struct Newest {
  std::int64_t arrive_ns;
  std::int64_t capture_ns;
  std::int64_t epoch;
};

// Neither side waits: a record that finds no room is refused.
//
// The other process may have died at any instruction or write anything: the capacity is read once, when
// attached, each side keeps its own position, and no position or length of the other leaves the queue.
class RecordQueue {
 public:
  // Throws std::system_error when there is no memory.
  explicit RecordQueue(std::int64_t capacity);
  // Maps the queue of another process (or of this one) to take from it; the caller keeps its `fd`. Throws
  // std::invalid_argument for anything that is not a whole queue.
  static RecordQueue attach(int fd);

  // Appends a record, and says what it is about; false when there is no room for it.
  bool put(const char* data, std::size_t n, const Newest& newest);
  // Moves the oldest record to `out`; false when there is none. Throws std::invalid_argument, again at each
  // call, when the writer left something that cannot be.
  bool take(std::string& out);
  // Of the newest record, put or refused; zeros before the first. Each number is whole, the three may be of
  // two.
  Newest newest() const;

  std::int64_t capacity() const { return shape_.capacity; }
  int fd() const { return memory_.fd(); }

 private:
  struct Shape {
    std::uint64_t magic;
    std::uint64_t version;
    std::int64_t capacity;
  };
  struct Header;

  RecordQueue(const Shape& shape, SharedMemory memory);
  static std::size_t total_bytes(const Shape& shape);
  Header& header() const;
  void write(std::uint64_t at, const char* from, std::size_t n);
  void read(std::uint64_t at, char* to, std::size_t n) const;

  SharedMemory memory_;
  Shape shape_;
  std::uint64_t own_ = 0;  // written by this side, or taken by it: bytes since the beginning
};

}  // namespace mmedge
