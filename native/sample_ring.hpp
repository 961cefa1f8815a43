// Time-indexed ring of mono samples: one writer thread, one reader thread, no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "shared_memory.hpp"

namespace mmedge {

// Samples have absolute int64 indices that start at 0 and never wrap. The newest `capacity` of them
// are kept; what is older, not yet written or declared silent reads as zero and counts as not real.
//
// The writer never waits. It announces how far it is going to write (`claimed_`), writes, then
// publishes (`end_`). A reader copies first and then discards what the announcement says may have
// been overwritten meanwhile, so a slow reader loses its oldest samples and nothing else.
//
// The memory is this process's own or shared with another one, which may die at any instruction or write
// anything into it: the capacity is read once, when attached, and no index read later leaves the ring.
class SampleRing {
 public:
  explicit SampleRing(std::int64_t capacity);
  // A ring for two processes. Throws std::system_error when there is no memory.
  static SampleRing shared(std::int64_t capacity);
  // Maps the shared ring of another process (or of this one); the caller keeps its `fd`. Throws
  // std::invalid_argument for anything that is not a whole ring.
  static SampleRing attach(int fd);

  // Appends `n` samples and returns the new end.
  std::int64_t write(const float* samples, std::size_t n);
  // Appends `n` samples of which nothing is known (a gap) and returns the new end.
  std::int64_t write_silence(std::int64_t n);
  // Copies samples [end - n, end) to `out` and returns how many of them are real.
  std::int64_t read(std::int64_t end, float* out, std::size_t n) const;

  std::int64_t begin() const;
  std::int64_t end() const;
  std::int64_t capacity() const { return shape_.capacity; }
  // -1 if the memory is not shared.
  int fd() const { return shared_.fd(); }

 private:
  struct Shape {
    std::uint64_t magic;
    std::uint64_t version;
    std::int64_t capacity;
  };
  struct Header;
  struct alignas(64) Line {
    unsigned char bytes[64];
  };

  SampleRing(const Shape& shape, SharedMemory memory);
  static Shape shape_of(std::int64_t capacity);
  static std::size_t total_bytes(const Shape& shape);
  void fill();
  std::int64_t claim(std::int64_t n);
  std::atomic<std::uint32_t>& slot(std::int64_t index) const;

  Shape shape_;
  std::unique_ptr<Line[]> own_;
  SharedMemory shared_;
  Header* header_;
};

}  // namespace mmedge
