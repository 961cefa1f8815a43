#include "statistics/histogram.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace mmedge {
namespace {

constexpr double kRatio = 0.009950330853168083;  // log(1.01)

using Bucket = std::uint16_t;
constexpr std::size_t kPair = sizeof(Bucket) + sizeof(std::int64_t);
static_assert(Histogram::kBuckets <= std::numeric_limits<Bucket>::max());

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
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const std::int64_t count = counts_[i].load(std::memory_order_relaxed);
    if (count == 0) continue;
    const auto bucket = static_cast<Bucket>(i);
    char pair[kPair];
    std::memcpy(pair, &bucket, sizeof bucket);
    std::memcpy(pair + sizeof bucket, &count, sizeof count);
    packed.append(pair, kPair);
  }
  return packed;
}

bool Histogram::unpack(std::string_view packed, std::int64_t sum_ns, std::int64_t max_ns) noexcept {
  if (packed.size() % kPair != 0) return false;
  Counts all{};
  for (; !packed.empty(); packed.remove_prefix(kPair)) {
    Bucket bucket;
    std::memcpy(&bucket, packed.data(), sizeof bucket);
    if (bucket >= kBuckets) return false;
    std::memcpy(&all[bucket], packed.data() + sizeof bucket, sizeof all[bucket]);
  }
  load(all, sum_ns, max_ns);
  return true;
}

void Histogram::copy(std::int64_t* counts) const noexcept {
  for (std::size_t i = 0; i < kBuckets; ++i) counts[i] = counts_[i].load(std::memory_order_relaxed);
}

}  // namespace mmedge
