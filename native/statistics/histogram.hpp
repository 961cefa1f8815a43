// Durations in buckets 1 % wide: percentiles of a run of any length in 19 kB.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mmedge {

// One thread counts while others read; neither waits, and a reader may see a duration in one figure and not
// yet in another. The first bucket holds what lasts up to 1 us, each further one begins 1 % later, the last
// one at 6.5 hours.
class Histogram {
 public:
  static constexpr std::size_t kBuckets = 2400;
  using Counts = std::array<std::int64_t, kBuckets>;

  // Counts one duration; below 1 us it counts as 1 us. Never allocates.
  void add(std::int64_t duration_ns) noexcept;
  // Takes the place of everything counted so far.
  void load(const Counts& counts, std::int64_t sum_ns, std::int64_t max_ns) noexcept;

  // What is in the buckets that hold anything, for another process of this machine.
  std::string pack() const;
  // Takes the place of everything counted so far; false, and nothing changes, if `packed` is not of `pack`.
  bool unpack(std::string_view packed, std::int64_t sum_ns, std::int64_t max_ns) noexcept;

  std::int64_t n() const noexcept { return n_.load(std::memory_order_relaxed); }
  std::int64_t sum_ns() const noexcept { return sum_ns_.load(std::memory_order_relaxed); }
  std::int64_t max_ns() const noexcept { return max_ns_.load(std::memory_order_relaxed); }
  void copy(std::int64_t* counts) const noexcept;  // [kBuckets]

 private:
  using Count = std::atomic<std::int64_t>;
  std::array<Count, kBuckets> counts_{};
  Count n_{0}, sum_ns_{0}, max_ns_{0};
};

}  // namespace mmedge
