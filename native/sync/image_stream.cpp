#include "sync/image_stream.hpp"

#include <algorithm>
#include <cstdlib>

namespace mmedge {
namespace {

// A camera picture that is bit-identical for this long is frozen: sensors are never noiseless.
constexpr std::int64_t kFrozenNs = kNsPerS;

}  // namespace

ImageStream::ImageStream(const StreamRules& rules, Payloads& payloads) : Stream(rules), payloads_(payloads) {
  rank_ = 1;
  min_step_ns_ = 1;
}

Pushed ImageStream::push(const Stamp& stamp, Item item) {
  item.capture_ns = stamp.capture_ns;
  item.uncertainty_ns = stamp.uncertainty_ns;
  const Cause cause = seen(stamp);
  if (cause != kTaken) return {cause, item};
  if (fresh()) begin();
  if (item.damaged) damaged_ns_ = item.capture_ns;
  if (!(item.damaged && policy() == Policy::hold)) {  // its trigger wants its time alone
    item.slot = payloads_.acquire();
    frames_.push_back(item);
  }
  return {kTaken, item};
}

Cause ImageStream::passed(const Stamp& stamp) {
  const Cause cause = seen(stamp);
  if (cause != kTaken) return cause;
  if (fresh()) begin();
  if (let_go_.size() == kMaxValues) let_go_.pop_front();
  let_go_.push_back(stamp.capture_ns);
  return kTaken;
}

void ImageStream::begin() {
  old_ = frames_.size();
  damaged_ns_ = -kForeverNs;
  let_go_.clear();
}

bool ImageStream::let_go_near(std::int64_t t_ns) const {
  for (std::size_t i = 0; i < let_go_.size(); ++i) {
    const std::int64_t age_ns = t_ns - let_go_[i];
    if (-period_ns() <= age_ns && age_ns <= limit_ns()) return true;
  }
  return false;
}

// All older ones but the last go.
void ImageStream::trim(std::int64_t keep_from_ns, Slot wanted) {
  while (frames_.size() > 1 && frames_.front().slot != wanted &&
         (old_ > 0 || frames_[1].capture_ns <= keep_from_ns))
    drop_oldest();
}

void ImageStream::drop_oldest() {
  payloads_.release(frames_.front().slot);
  frames_.pop_front();
  if (old_ > 0) --old_;
}

void ImageStream::close() {
  while (!frames_.empty()) drop_oldest();
}

Cut ImageStream::cut(std::int64_t t_ns, bool latest) const {
  if (frames_.size() <= old_) return damaged_near(t_ns) ? absent(kDamaged) : gone();  // nothing of this epoch
  std::size_t best = frames_.size() - 1;
  if (!latest) {
    const auto distance = [&](std::size_t index) { return std::abs(frames_[index].capture_ns - t_ns); };
    while (best > old_ && distance(best - 1) <= distance(best)) --best;
  }
  return admit(frames_[best], t_ns);
}

Cut ImageStream::admit(const Item& frame, std::int64_t t_ns) const {
  if (frame.damaged) return last_good(t_ns);
  const std::int64_t age_ns = t_ns - frame.capture_ns;
  if (age_ns < -period_ns() || age_ns > limit_ns())
    return damaged_near(t_ns) ? absent(kDamaged) : absent(kTooOld, age_ns);
  if (frame.unchanged_ns > kFrozenNs) return absent(kFrozen, frame.unchanged_ns);
  Cut cut;
  cut.slot = frame.slot;
  cut.epoch = epoch();
  cut.uncertainty_ns = frame.uncertainty_ns;
  cut.age_ns = std::max<std::int64_t>(age_ns, 0);
  cut.skew_ns = std::abs(age_ns);
  return cut;
}

// The last good frame before `t_ns` in place of a damaged one, where the policy wants that.
Cut ImageStream::last_good(std::int64_t t_ns) const {
  if (policy() == Policy::hold) {
    for (std::size_t index = frames_.size(); index-- > old_;) {
      if (frames_[index].capture_ns > t_ns) continue;
      const Cut cut = admit(frames_[index], t_ns);
      if (cut.why == kPresent) return cut;
      break;  // it is too old: the damage is why
    }
  }
  return absent(kDamaged);
}

bool ImageStream::damaged_near(std::int64_t t_ns) const {
  const std::int64_t age_ns = t_ns - damaged_ns_;
  return -period_ns() <= age_ns && age_ns <= limit_ns();
}

}  // namespace mmedge
