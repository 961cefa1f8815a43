#include "graph/stream.hpp"

#include <algorithm>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr std::int64_t kNsPerS = 1'000'000'000;

}  // namespace

StreamRunner::StreamRunner(Stage* stage, Hearing hearing) : Runner(stage), hearing_(hearing) {
  if (hearing.step < 1 || hearing.rate_hz < 1)
    throw std::invalid_argument("a stream hears steps of at least one sample");
}

bool StreamRunner::due(const Moment& moment, std::uint64_t) {
  moment_ = &moment;
  if (!(moment.bits >> hearing_.seat & 1)) {
    steps_ = 0;
    hide();
    return false;
  }
  const Sound& sound = moment.sounds[hearing_.seat];
  const std::int64_t epoch = moment.epochs[hearing_.seat], step = hearing_.step;
  if (!known_ || epoch != epoch_ || sound.begin != begin_) {
    known_ = true;
    epoch_ = epoch;
    heard_ = begin_ = sound.begin;
    if (joins_)  // not all that was heard before it came, which may be minutes
      heard_ += std::max<std::int64_t>((sound.end - sound.begin) / step - 1, 0) * step;
    joins_ = false;
    forget();
    hide();
    stage().life = Life::kCold;
  }
  if (std::max(heard_ + step - hearing_.window, sound.begin) < sound.oldest) {
    const std::int64_t lost = sound.oldest + hearing_.window - step - heard_;
    heard_ += (lost + step - 1) / step * step;
    ++overruns_;
    forget();
  }
  steps_ = std::max<std::int64_t>((sound.end - heard_) / step, 0);
  if (steps_ == 0 && stage().life == Life::kHidden) {
    tensors().publish();
    stage().life = Life::kWarm;
    ++stage().version;
  }
  return steps_ > 0;
}

void StreamRunner::fail() {
  heard_ += steps_ * hearing_.step;
  steps_ = 0;
  Runner::fail();
}

// Each step feeds its own back.
void StreamRunner::feed_states(const Moment&) {}

std::int64_t StreamRunner::stamp(const Moment& moment) const {
  const std::int64_t rest = moment.sounds[hearing_.seat].end - heard_ - steps_ * hearing_.step;
  return moment.t_ns - rest * kNsPerS / hearing_.rate_hz;
}

void StreamRunner::compute() {
  while (steps_ > 0) {
    hands().hear(*moment_, heard_ + hearing_.step);
    Runner::compute();
    tensors().carry();
    heard_ += hearing_.step;
    --steps_;
  }
}

void StreamRunner::hide() {
  if (stage().life != Life::kWarm) return;
  stage().life = Life::kHidden;
  ++stage().version;
  tensors().clear();
}

}  // namespace mmedge
