#include "clock/microphone_clock.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "clock/percentile.hpp"
#include "integers.hpp"

namespace mmedge {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;
constexpr std::int64_t kProbeNs = 2 * kSecondNs;
constexpr std::int64_t kGraceNs = 1'000'000;  // a block's end is computed from its start
constexpr std::int64_t kMaxAgeNs = kSecondNs / 2;
constexpr std::int64_t kBreakNs = 30'000'000;  // a stamp that leaves its line by more is broken
constexpr double kPaceNs = 5'000'000;          // the middle step of a class that keeps the pace is as close
constexpr std::size_t kSteps = 10;             // that are too few to judge
// A class is left after ten bad stamps in a row, or when more than every tenth is bad.
constexpr int kFault = 10, kFaults = 100;
constexpr Quality kAll[] = {Quality::kA, Quality::kB, Quality::kC};

std::int64_t time_ns(const Stamp& stamp, Quality quality) {
  if (quality == Quality::kA) return stamp.adc_ns;
  return quality == Quality::kB ? stamp.current_ns : stamp.entry_ns;
}

bool near_arrival(const Stamp& stamp, std::int64_t time_ns) {
  const std::int64_t age_ns = subtract(stamp.entry_ns, time_ns);
  return age_ns >= -kGraceNs && age_ns < kMaxAgeNs;
}

}  // namespace

MicrophoneClock::MicrophoneClock(std::int64_t rate_hz, const std::array<std::int64_t, kQualities>& floor_ns)
    : rate_hz_(rate_hz),
      clocks_{StreamClock(floor_ns[0]), StreamClock(floor_ns[1]), StreamClock(floor_ns[2])} {
  if (rate_hz < 1) throw std::invalid_argument("the sample rate must be at least 1 Hz");
}

std::int64_t MicrophoneClock::stream_ns(std::int64_t samples) const {
  return scale(samples, kSecondNs, rate_hz_);
}

MicrophoneClock::Outcome MicrophoneClock::observe(const Stamp& stamp, bool overflow) {
  const std::int64_t stream_ns = this->stream_ns(stamp.samples);
  std::int64_t jump_ns = 0;
  for (const Quality quality : kAll) {
    if (!of(trusted_, quality)) continue;
    const std::int64_t jumped_ns = observe_class(quality, stamp, stream_ns, overflow);
    if (quality == quality_) jump_ns = jumped_ns;
  }
  Outcome outcome{std::max<std::int64_t>(0, jump_ns), jump_ns != 0 && !(overflow && jump_ns > 0),
                  Change::kNone};
  if (probing_) {
    probe_.push_back(stamp);
    if (subtract(stamp.entry_ns, probe_.front().entry_ns) >= kProbeNs) {
      choose();
      outcome.change = Change::kChosen;
    }
  } else if (of(faults_, quality_) >= kFaults) {
    const std::int64_t off_ns = leave(stream_ns);
    outcome.broken = outcome.broken || off_ns > kBreakNs || off_ns < -kBreakNs;
    outcome.change = Change::kLeft;
  }
  return outcome;
}

std::int64_t MicrophoneClock::observe_class(Quality quality, const Stamp& stamp, std::int64_t stream_ns,
                                            bool overflow) {
  const std::int64_t time = time_ns(stamp, quality), before = of(before_ns_, quality);
  of(before_ns_, quality) = time;
  int& faults = of(faults_, quality);
  if (quality != Quality::kC && !(before < time && near_arrival(stamp, time))) {
    faults = std::min(kFaults, faults + kFault);
    return 0;
  }
  if (faults < kFaults) faults = std::max(0, faults - 1);
  return clock_of(quality).observe(stream_ns, subtract(time, of(lag_ns_, quality)), overflow);
}

// Whether the probed times of a class rise strictly, are near their arrival and keep the pace of the blocks.
// The first quarter is not judged, as some drivers give zeros at first.
bool MicrophoneClock::sane(Quality quality) const {
  std::vector<double> off;
  for (std::size_t i = probe_.size() / 4; i < probe_.size(); ++i) {
    const Stamp& stamp = probe_[i];
    if (!near_arrival(stamp, time_ns(stamp, quality))) return false;
    if (i == probe_.size() / 4) continue;
    const Stamp& before = probe_[i - 1];
    const std::int64_t step = subtract(time_ns(stamp, quality), time_ns(before, quality));
    if (step <= 0) return false;
    const std::int64_t pace = scale(subtract(stamp.samples, before.samples), kSecondNs, rate_hz_, true);
    off.push_back(std::abs(static_cast<double>(subtract(step, pace))));
  }
  return off.size() > kSteps && median(off.data(), off.size()) < kPaceNs;
}

void MicrophoneClock::choose() {
  for (const Quality quality : {Quality::kA, Quality::kB}) of(trusted_, quality) = sane(quality);
  quality_ = best();
  faults_ = {};
  const std::int64_t offset_ns = clock().offset_ns();
  for (const Quality quality : kAll) {
    if (quality == quality_ || !of(trusted_, quality)) continue;
    of(lag_ns_, quality) = subtract(clock_of(quality).offset_ns(), offset_ns);
    clock_of(quality).shift(subtract(0, of(lag_ns_, quality)));
  }
  probing_ = false;
  std::vector<Stamp>().swap(probe_);
}

// Goes on with the next class; returns the jump in ns.
std::int64_t MicrophoneClock::leave(std::int64_t stream_ns) {
  const std::int64_t before_ns = to_monotonic(stream_ns);
  for (const Quality quality : kAll)
    of(trusted_, quality) = of(trusted_, quality) && of(faults_, quality) < kFaults;
  quality_ = best();
  return subtract(to_monotonic(stream_ns), before_ns);
}

// C is always trusted.
Quality MicrophoneClock::best() const {
  return *std::find_if(std::begin(kAll), std::end(kAll),
                       [&](Quality quality) { return of(trusted_, quality); });
}

}  // namespace mmedge
