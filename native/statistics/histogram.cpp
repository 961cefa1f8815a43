#include "statistics/histogram.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mmedge {
namespace {

constexpr double kRatio = 0.009950330853168083;  // log(1.01)

// Seven bits a byte, the lowest first; all but the last have the eighth. Most counts and distances take one
// byte.
void put(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<char>(value | 0x80));
  to.push_back(static_cast<char>(value));
}

bool take(std::string_view& from, std::uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 64 && !from.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(from.front());
    from.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// There is one writer, so that what it has read is still true when it writes.
void put(std::atomic<std::int64_t>& to, std::int64_t value) { to.store(value, std::memory_order_relaxed); }

std::int64_t sum(std::int64_t a, std::int64_t b) {
  using Limits = std::numeric_limits<std::int64_t>;
  if (b > 0 && a > Limits::max() - b) return Limits::max();
  if (b < 0 && a < Limits::min() - b) return Limits::min();
  return a + b;
}

}  // namespace

void Histogram::add(std::int64_t duration_ns) noexcept {
  const double us = static_cast<double>(std::max<std::int64_t>(duration_ns, 1000)) / 1000.0;
  const auto bucket = std::min(static_cast<std::size_t>(std::log(us) / kRatio), kBuckets - 1);
  put(counts_[bucket], counts_[bucket].load(std::memory_order_relaxed) + 1);
  put(n_, n() + 1);
  put(sum_ns_, sum(sum_ns(), duration_ns));
  if (duration_ns > max_ns()) put(max_ns_, duration_ns);
}

void Histogram::load(const Counts& counts, std::int64_t sum_ns, std::int64_t max_ns) noexcept {
  std::int64_t n = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    put(counts_[i], counts[i]);
    n = sum(n, counts[i]);
  }
  put(n_, n);
  put(sum_ns_, sum_ns);
  put(max_ns_, max_ns);
}

std::string Histogram::pack() const {
  std::string packed;
  std::size_t next = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const std::int64_t count = counts_[i].load(std::memory_order_relaxed);
    if (count == 0) continue;
    put(packed, i - next);
    put(packed, static_cast<std::uint64_t>(count));
    next = i + 1;
  }
  return packed;
}

bool Histogram::unpack(std::string_view packed, std::int64_t sum_ns, std::int64_t max_ns) noexcept {
  Counts all{};
  std::size_t next = 0;
  while (!packed.empty()) {
    std::uint64_t skipped = 0, count = 0;
    if (!take(packed, skipped) || !take(packed, count) || skipped >= kBuckets - next) return false;
    next += static_cast<std::size_t>(skipped);
    all[next++] = static_cast<std::int64_t>(count);
  }
  load(all, sum_ns, max_ns);
  return true;
}

void Histogram::copy(std::int64_t* counts) const noexcept {
  for (std::size_t i = 0; i < kBuckets; ++i) counts[i] = counts_[i].load(std::memory_order_relaxed);
}

}  // namespace mmedge
