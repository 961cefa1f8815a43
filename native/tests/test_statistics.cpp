#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>

#include "check.hpp"
#include "statistics/histogram.hpp"
#include "statistics/trigger_times.hpp"

namespace {

using mmedge::Histogram;
using mmedge::Origin;
using mmedge::TriggerTimes;

std::int64_t counted(const Histogram& histogram, Histogram::Counts* counts = nullptr) {
  const auto own = std::make_unique<Histogram::Counts>();
  Histogram::Counts& all = counts ? *counts : *own;
  histogram.copy(all.data());
  return std::accumulate(all.begin(), all.end(), std::int64_t{0});
}

void every_duration_has_its_bucket() {
  const auto counts = std::make_unique<Histogram::Counts>();
  for (std::int64_t ns = 1; ns < 20'000'000'000'000; ns += 1 + ns / 50) {
    Histogram histogram;
    histogram.add(ns);
    CHECK(counted(histogram, counts.get()) == 1);
    const double us = std::max(static_cast<double>(ns) / 1e3, 1.0);
    const auto edge = static_cast<std::size_t>(std::log(us) / std::log(1.01) * (1.0 + 1e-12));
    const std::size_t bucket = static_cast<std::size_t>(
        std::find(counts->begin(), counts->end(), std::int64_t{1}) - counts->begin());
    CHECK(bucket == std::min<std::size_t>(edge, Histogram::kBuckets - 1));
  }
}

void sums_do_not_overflow() {
  Histogram histogram;
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  histogram.add(kMost);
  histogram.add(kMost);
  CHECK(histogram.sum_ns() == kMost && histogram.max_ns() == kMost && histogram.n() == 2);
  histogram.add(-7);
  CHECK(histogram.sum_ns() == kMost - 7 && histogram.n() == 3 && counted(histogram) == 3);
}

void what_is_loaded_takes_the_place_of_all() {
  Histogram histogram;
  histogram.add(5'000'000);
  const auto counts = std::make_unique<Histogram::Counts>();
  counts->fill(0);
  (*counts)[0] = 2;
  (*counts)[2399] = 3;
  histogram.load(*counts, 11, 7);
  CHECK(histogram.n() == 5 && histogram.sum_ns() == 11 && histogram.max_ns() == 7 && counted(histogram) == 5);
}

void what_is_packed_is_unpacked() {
  Histogram histogram, other;
  for (std::int64_t ns = 900; ns < 40'000'000'000'000; ns += 1 + ns / 3) histogram.add(ns);
  other.add(5'000'000);
  const std::string packed = histogram.pack();
  CHECK(other.unpack(packed, histogram.sum_ns(), histogram.max_ns()));
  CHECK(other.pack() == packed && other.n() == histogram.n() && other.max_ns() == histogram.max_ns());
  CHECK(!other.unpack(packed + '\1', 0, 0));                     // a bucket without a count
  CHECK(!other.unpack(std::string("\xdf\x12\1\0\1", 5), 0, 0));  // bucket 2399, and one behind it
  CHECK(!other.unpack(std::string(30, '\xff'), 0, 0));
  CHECK(other.pack() == packed);
  CHECK(other.unpack("", 0, 0) && other.n() == 0 && other.pack().empty());
}

// ThreadSanitizer looks on.
void one_counts_while_another_reads() {
  Histogram histogram;
  std::atomic<bool> done{false};
  std::thread reader([&] {
    std::int64_t seen = 0;
    while (!done.load()) {
      const std::int64_t now = counted(histogram);
      CHECK(now >= seen && histogram.max_ns() <= 19'999);
      seen = now;
    }
  });
  for (std::int64_t ns = 0; ns < 20'000; ++ns) histogram.add(ns);
  done.store(true);
  reader.join();
  CHECK(counted(histogram) == 20'000 && histogram.n() == 20'000);
}

void a_trigger_is_counted_from_its_origin() {
  const TriggerTimes::Stamps stamps{100, 130, 150, 260, 300, 15, 20, 70, 9, 0.5, 1.5};
  for (const Origin origin : {Origin::kCapture, Origin::kDelivery, Origin::kCall}) {
    Histogram all[10];
    TriggerTimes times(
        origin, {&all[0], &all[1], &all[2], &all[3], &all[4], &all[5], &all[6], &all[7], &all[8], &all[9]});
    const TriggerTimes::Latency found = times.add(stamps);
    const bool capture = origin == Origin::kCapture, call = origin == Origin::kCall;
    CHECK(found.from == (capture ? 100 : call ? 150 : 130));
    CHECK(found.end_to_end == 300 - found.from && found.deliver == (capture ? 30 : 0));
    CHECK(found.ready == (call ? 0 : 15) && found.interpreted == 40);
    CHECK(found.overhead == found.end_to_end - 70 - found.deliver - found.ready);
    CHECK(all[0].sum_ns() == found.end_to_end && all[1].sum_ns() == found.overhead);
    CHECK(all[7].n() == (capture ? 1 : 0) && all[8].sum_ns() == 500'000 && all[9].sum_ns() == 1'500'000);
    // A capture time ahead of the clock makes no time negative.
    TriggerTimes::Stamps ahead = stamps;
    ahead.capture = ahead.delivered = ahead.start = 1'000;
    const TriggerTimes::Latency none = times.add(ahead);
    CHECK(none.end_to_end == 0 && none.overhead == 0 && none.deliver == 0);
    TriggerTimes::Stamps wrong = stamps;
    wrong.skew_ms = std::nan("");
    CHECK(refuses([&] { times.add(wrong); }) && all[0].n() == 2);
  }
}

}  // namespace

int main() {
  every_duration_has_its_bucket();
  sums_do_not_overflow();
  what_is_loaded_takes_the_place_of_all();
  what_is_packed_is_unpacked();
  one_counts_while_another_reads();
  a_trigger_is_counted_from_its_origin();
}
