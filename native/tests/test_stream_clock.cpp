#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "check.hpp"
#include "clock/percentile.hpp"
#include "clock/stream_clock.hpp"
#include "integers.hpp"

namespace {

using mmedge::StreamClock;

constexpr std::int64_t kMs = 1'000'000, kS = 1000 * kMs;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();

void integers() {
  using namespace mmedge;
  static_assert(add(kMax, 1) == kMax && add(kMin, -1) == kMin && add(2, -3) == -1);
  static_assert(subtract(kMin, 1) == kMin && subtract(0, kMin) == kMax && subtract(2, 3) == -1);
  static_assert(floor_divide(-1, 8) == -1 && floor_divide(-8, 8) == -1 && floor_divide(7, 8) == 0);
  static_assert(scale(kMax, kMax, 1) == kMax && scale(kMin, kMax, 2) == kMin && scale(-1, 1, 3) == -1);
  static_assert(scale(kMax, 48'000, 48'000) == kMax && scale(3, 1, 2) == 1 && scale(3, 1, 2, true) == 2);
  CHECK(round_to_int64(0.5) == 0 && round_to_int64(1.5) == 2 && round_to_int64(-2.5) == -2);
  CHECK(round_to_int64(1e30) == kMax && round_to_int64(-1e30) == kMin);
}

void percentiles() {
  double four[] = {3, 1, 4, 2}, one[] = {7}, five[] = {50, 10, 40, 20, 30};
  CHECK(mmedge::median(four, 4) == 2.5 && mmedge::median(one, 1) == 7 &&
        mmedge::percentile(one, 1, 0.99) == 7);
  CHECK(mmedge::percentile(five, 5, 0.25) == 20 && mmedge::percentile(five, 5, 1.0) == 50);
  CHECK(std::abs(mmedge::percentile(five, 5, 0.99) - 49.6) < 1e-9);
}

// Blocks of 10 ms by a clock that is 60 ppm slow, to a reader that stalls: the error stays below what is
// stated.
void follows_the_envelope() {
  StreamClock clock(kMs / 2);
  std::mt19937 random(1);
  std::int64_t arrived = 0;
  for (std::int64_t k = 1; k <= 9000; ++k) {
    const std::int64_t stream = k * 10 * kMs;
    const std::int64_t earliest = 7 * kS + stream + std::llrint(60e-6 * static_cast<double>(stream));
    const std::int64_t late = random() % 50 == 0 ? static_cast<std::int64_t>(random() % 80) * kMs
                                                 : static_cast<std::int64_t>(random() % 1000) * 1000;
    arrived = std::max(arrived, earliest + late);
    CHECK(clock.observe(stream, arrived) == 0);
    const std::int64_t error = std::abs(clock.to_monotonic(stream) - earliest);
    if (k > 4000) CHECK(error < kMs / 2 && error <= clock.uncertainty_ns());
  }
  CHECK(std::abs(clock.ppm() - 60) < 2);
  CHECK(clock.jitter_ns() > 5 * kMs && clock.jitter_ns() < 80 * kMs);
  const std::int64_t before = clock.to_monotonic(90 * kS);
  clock.shift(100 * kMs);
  CHECK(clock.to_monotonic(90 * kS) == before + 100 * kMs);
  CHECK(clock.observe(91 * kS, arrived + kS + 400 * kMs, true) > 0);
}

void a_jump_is_told() {
  StreamClock clock(kMs);
  for (std::int64_t k = 0; k < 1000; ++k) CHECK(clock.observe(k * 10 * kMs, k * 10 * kMs + 5 * kMs) == 0);
  CHECK(clock.observe(3600 * kS, 10 * kS) == 10 * kS - 3600 * kS - 5 * kMs);
  CHECK(clock.to_monotonic(3600 * kS) == 10 * kS);
  clock.restart();
  CHECK(clock.observe(0, 20 * kS) == 0 && clock.to_monotonic(0) == 20 * kS);
}

// Whatever comes: no overflow (the sanitizers look), and numbers that are finite.
void nonsense() {
  std::mt19937_64 random(3);
  StreamClock clock(kMs);
  for (int k = 0; k < 200'000; ++k) {
    const auto any = [&] {
      return static_cast<std::int64_t>(random() >> random() % 64) * (random() % 2 ? 1 : -1);
    };
    const std::int64_t stream = random() % 50 == 0 ? (random() % 2 ? kMin : kMax) : any();
    clock.observe(stream, any(), random() % 9 == 0);
    if (random() % 20 == 0) clock.shift(any());
    if (random() % 50 == 0) clock.restart();
    clock.to_monotonic(any());
    CHECK(clock.uncertainty_ns() >= kMs && std::abs(clock.ppm()) <= 500 && clock.jitter_ns() >= kMin);
    CHECK(std::isfinite(static_cast<double>(clock.offset_ns())));
  }
}

}  // namespace

int main() {
  integers();
  percentiles();
  follows_the_envelope();
  a_jump_is_told();
  nonsense();
}
