#include <cstdint>
#include <limits>
#include <random>

#include "check.hpp"
#include "clock/microphone_clock.hpp"

using mmedge::MicrophoneClock;
using mmedge::Quality;
using mmedge::Stamp;
using Change = mmedge::MicrophoneClock::Change;

namespace {

constexpr std::int64_t kMs = 1'000'000, kS = 1000 * kMs, kRate = 48'000;

MicrophoneClock clock_of_floors() { return MicrophoneClock(kRate, {kMs / 2, 3 * kMs, 10 * kMs}); }

// The k-th block of 10 ms: its last sample was there 12 ms before the callback was entered.
Stamp stamp(std::int64_t k, std::int64_t adc_jump_ns = 0) {
  const std::int64_t end_ns = 100 * kS + k * 10 * kMs;
  return {480 * k, end_ns + 12 * kMs, end_ns + adc_jump_ns, end_ns + 11 * kMs};
}

void the_best_is_chosen_and_left() {
  MicrophoneClock clock = clock_of_floors();
  int chosen = 0, left = 0;
  for (std::int64_t k = 1; k < 900; ++k) {
    const auto outcome = clock.observe(stamp(k, k < 600 ? 0 : 3600 * kS), false);
    chosen += outcome.change == Change::kChosen;
    left += outcome.change == Change::kLeft;
    CHECK(outcome.gap_ns == 0 && !outcome.broken);
    CHECK(clock.quality() == (k < 201 ? Quality::kC : k < 609 ? Quality::kA : Quality::kB));
    const std::int64_t off = clock.to_monotonic(clock.stream_ns(480 * k)) - stamp(k).adc_ns;
    CHECK(k < 201 ? off == 12 * kMs : off >= 0 && off < kMs);
  }
  CHECK(chosen == 1 && left == 1 && clock.clock().uncertainty_ns() >= 3 * kMs);
}

void times_of_another_clock_are_not_used() {
  MicrophoneClock clock = clock_of_floors();
  for (std::int64_t k = 1; k < 300; ++k) {
    Stamp wall = stamp(k);
    wall.adc_ns += std::int64_t{1} << 60;
    wall.current_ns = 0;
    clock.observe(wall, false);
  }
  CHECK(clock.quality() == Quality::kC);
}

void a_gap_that_is_said_is_no_break() {
  MicrophoneClock clock = clock_of_floors();
  CHECK(clock.observe(stamp(1), true).gap_ns == 0);
  for (std::int64_t k = 2; k < 600; ++k) clock.observe(stamp(k), false);
  Stamp late = stamp(610);
  late.samples = 480 * 600;
  const auto outcome = clock.observe(late, true);
  CHECK(outcome.gap_ns == 100 * kMs && !outcome.broken);
}

// Whatever comes: no overflow (the sanitizers look).
void nonsense() {
  std::mt19937_64 random(5);
  for (int run = 0; run < 20; ++run) {
    MicrophoneClock clock = clock_of_floors();
    for (int k = 0; k < 5000; ++k) {
      const auto any = [&] {
        const auto value = static_cast<std::int64_t>(random() >> random() % 64);
        return random() % 2 ? value : -value;
      };
      if (random() % 100 == 0) {
        const auto limit = std::numeric_limits<std::int64_t>::min();
        clock.observe({any(), limit, limit, any()}, false);
      } else {
        clock.observe({any(), any(), any(), any()}, random() % 9 == 0);
      }
      clock.to_monotonic(clock.stream_ns(any()));
      CHECK(clock.clock().uncertainty_ns() >= kMs / 2);
    }
  }
  CHECK(refuses([] { MicrophoneClock none(0, {}); }));
}

}  // namespace

int main() {
  the_best_is_chosen_and_left();
  times_of_another_clock_are_not_used();
  a_gap_that_is_said_is_no_break();
  nonsense();
  return 0;
}
