// Time-indexed ring of mono samples: one writer thread, one reader thread, no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace mmedge {

// Samples have absolute int64 indices that start at 0 and never wrap. The newest `capacity` of them
// are kept; what is older, not yet written or declared silent reads as zero and counts as not real.
//
// The writer never waits. It announces how far it is going to write (`claimed_`), writes, then
// publishes (`end_`). A reader copies first and then discards what the announcement says may have
// been overwritten meanwhile, so a slow reader loses its oldest samples and nothing else.
class SampleRing {
 public:
  explicit SampleRing(std::int64_t capacity);

  // Appends `n` samples and returns the new end.
  std::int64_t write(const float* samples, std::size_t n);
  // Appends `n` samples of which nothing is known (a gap) and returns the new end.
  std::int64_t write_silence(std::int64_t n);
  // Copies samples [end - n, end) to `out` and returns how many of them are real.
  std::int64_t read(std::int64_t end, float* out, std::size_t n) const;

  std::int64_t begin() const;
  std::int64_t end() const { return end_.load(std::memory_order_acquire); }
  std::int64_t capacity() const { return capacity_; }

 private:
  std::int64_t claim(std::int64_t n);
  std::atomic<std::uint32_t>& slot(std::int64_t index) const;

  std::int64_t capacity_;
  std::unique_ptr<std::atomic<std::uint32_t>[]> slots_;
  std::atomic<std::int64_t> claimed_{0};
  std::atomic<std::int64_t> end_{0};
};

}  // namespace mmedge
