#include "sync/audio_stream.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "integers.hpp"

namespace mmedge {
namespace {

// Sources say what they lost. Time stamps that disagree with the count of samples by more than this, more
// than any clock wavers, show a gap that was not said.
constexpr std::int64_t kGapNs = 100'000'000;
constexpr std::int64_t kMaxRateHz = 10'000'000, kMaxWindow = std::int64_t{1} << 40;

std::int64_t capacity_of(const AudioStream::Rules& sound) {
  if (sound.rate_hz < 1 || sound.rate_hz > kMaxRateHz)
    throw std::invalid_argument("rate_hz must be 1 to 10,000,000");
  if (sound.window < 1 || sound.window > kMaxWindow)
    throw std::invalid_argument("window must be 1 to 2**40 samples");
  return sound.window + scale(sound.reserve_ns, sound.rate_hz, kNsPerS);
}

}  // namespace

AudioStream::AudioStream(const StreamRules& rules, const Rules& sound)
    : Stream(rules), sound_(sound), ring_(SampleRing::shared(capacity_of(sound))) {
  rank_ = 0;
  min_step_ns_ = kMinInt64;  // sound is never refused for its time
}

bool AudioStream::jumped(std::int64_t step_ns, std::int64_t early_ns) {
  off_ns_ = step_ns - std::min(scale(coming_, kNsPerS, sound_.rate_hz), kForeverNs / 2);
  // Sound that would overlap cannot be placed. What lies ahead of the clock is no gap.
  return off_ns_ < -kGapNs || (live() && off_ns_ > kGapNs && early_ns > kJumpNs);
}

Cause AudioStream::push(const Stamp& stamp, const float* samples, std::size_t n, std::int64_t lost) {
  coming_ = add(lost, static_cast<std::int64_t>(n));
  const Cause cause = seen(stamp);
  if (cause != kTaken) return cause;
  if (fresh() && end_ > 0) {
    end_ = ring_.write_silence(sound_.window);  // no window spans two epochs
    holes_.clear();
  } else if (!fresh() && off_ns_ > kGapNs) {
    lost = add(lost, scale(off_ns_, sound_.rate_hz, kNsPerS));
  }
  if (lost != 0) lose(lost);
  if (fresh()) begin_ = end_;
  end_ = ring_.write(samples, n);
  return kTaken;
}

void AudioStream::lose(std::int64_t lost) {
  std::int64_t first = end_;
  end_ = ring_.write_silence(lost);
  lost_ = add(lost_, lost);
  if (!holes_.empty()) {
    const Hole hole = holes_.back();
    if (hole.end == first || hole.end - hole.first < sound_.window) {
      holes_.pop_back();
      if (hole.end == first) first = hole.first;
    }
  }
  holes_.push_back({first, end_});
  while (holes_.front().end < end_ - ring_.capacity()) holes_.pop_front();
}

bool AudioStream::in_hole(std::int64_t begin, std::int64_t end) const {
  for (std::size_t i = 0; i < holes_.size(); ++i)
    if (holes_[i].first <= begin && end <= holes_[i].end) return true;
  return false;
}

Cut AudioStream::cut(std::int64_t t_ns, bool latest) const {
  if (!has_arrived()) return gone();
  const std::int64_t needed_ns = t_ns + sound_.ahead_ns, newest_ns = capture_ns();
  std::int64_t end = end_, cut_ns = newest_ns;
  if (needed_ns < newest_ns && !latest) {
    // Rounded to the nearest sample; the cut's own time says where that is.
    end -= scale(newest_ns - needed_ns, sound_.rate_hz, kNsPerS, true);
    cut_ns = end_ns(end);
  }
  const std::int64_t off_ns = needed_ns - cut_ns;
  if (std::abs(off_ns) > hold_ns().value_or(kIdleNs))
    return absent(off_ns > 0 ? kBehind : kAhead, std::abs(off_ns));
  const std::int64_t begin = std::max(end - sound_.window, begin_);
  if (end <= begin || in_hole(begin, end)) return absent(kNoSound);
  if (begin < end_ - ring_.capacity()) return absent(kOverwritten);
  Cut cut;
  cut.epoch = epoch();
  cut.uncertainty_ns = uncertainty_ns();
  cut.end = end;
  cut.first = begin_;
  cut.oldest = std::max(begin_, end_ - ring_.capacity());
  cut.age_ns = std::max<std::int64_t>(t_ns - cut_ns, 0);
  cut.skew_ns = std::abs(off_ns);
  return cut;
}

std::int64_t AudioStream::end_ns(std::int64_t end) const {
  return subtract(capture_ns(), scale(subtract(end_, end), kNsPerS, sound_.rate_hz));
}

}  // namespace mmedge
