#include "sync/triggers.hpp"

#include <algorithm>
#include <stdexcept>

#include "integers.hpp"

namespace mmedge {
namespace {

// Triggers that may wait beside those whose time to wait is not over, and in all.
constexpr std::int64_t kMaxPending = 8, kMaxPendingEver = 65'536;

}  // namespace

Triggers::Triggers(const Rules& rules, Payloads& payloads) : rules_(rules), payloads_(payloads) {
  if (rules.every_ns < 1) throw std::invalid_argument("every_ns must be at least 1");
  if (rules.wait_ns < 0) throw std::invalid_argument("wait_ns must not be negative");
}

void Triggers::add(const Stream& stream, bool own, bool by_packet) {
  streams_.push_back(&stream);
  if (own) {
    own_ = &stream;
    by_packet_ = by_packet;
  }
  if (!stream.ranked()) return;
  const auto by_rank = [](const Stream* a, const Stream* b) { return a->rank() < b->rank(); };
  clocks_.insert(std::upper_bound(clocks_.begin(), clocks_.end(), &stream, by_rank), &stream);
}

void Triggers::on_refused(const Stamp& stamp, Cause cause, bool let_go) {
  ++made_;
  drops_.add(cause);
  if (next_hop_ns_ && let_go)
    next_hop_ns_ = std::max(*next_hop_ns_, stamp.capture_ns + step_ns());  // no hop stands for it, too
}

void Triggers::on_packet(const Stamp& stamp, const Item& item) {
  if (next_hop_ns_) {
    const std::int64_t until_ns = stamp.capture_ns - step_ns() / 2;
    if (until_ns - *next_hop_ns_ <= patience_ns()) {
      resumed_ = std::max<std::int64_t>(floor_divide(until_ns - *next_hop_ns_, step_ns()), 0);
      hop(*next_hop_ns_, until_ns, stamp.arrive_ns, hop_clock_);
    }
    next_hop_ns_.reset();
  }
  append({stamp.capture_ns, stamp.arrive_ns, own_, own_->epoch(), stamp.uncertainty_ns, true, item});
}

void Triggers::make_hops(std::int64_t now_ns, std::int64_t deliver_ns) {
  const Stream* clock = nullptr;
  if (own_) {
    const bool alive = own_->alive(now_ns);
    if (alive ? by_packet_ || !own_->has_arrived() : own_->ended_well()) return;
    if (alive) clock = own_;
  }
  if (!clock) {
    clock = first_alive(now_ns);
    if (!clock && !ticks(now_ns)) return;
  }
  const std::int64_t horizon_ns = clock ? clock->watermark_ns() : now_ns;
  const Clock key{clock, clock ? clock->epoch() : 0};
  if (!(key == hop_clock_) || !next_hop_ns_) {
    hop_clock_ = key;
    // Where the last trigger left off: what was alive meanwhile has come. Not after another origin of time.
    const std::int64_t behind_ns = horizon_ns - last_ns_;
    const bool resume = -kJumpNs <= behind_ns && behind_ns <= patience_ns();
    next_hop_ns_ = resume ? last_ns_ + step_ns() : horizon_ns;
    resumed_ = resume ? std::max<std::int64_t>(floor_divide(behind_ns, step_ns()), 0) : 0;
  }
  next_hop_ns_ = hop(*next_hop_ns_, horizon_ns, deliver_ns, key);
}

std::int64_t Triggers::hop(std::int64_t next_ns, std::int64_t horizon_ns, std::int64_t deliver_ns,
                           const Clock& clock) {
  const std::int64_t step = step_ns();
  const std::int64_t behind = floor_divide(horizon_ns - next_ns, step) - limit();
  if (behind > 0) {
    // The bounded queue would drop them one by one: after a long block, or a wrong time stamp.
    made_ += behind;
    drops_.add(kSyncOverflow, behind);
    next_ns += behind * step;
  }
  const std::int64_t uncertainty_ns = clock.stream ? clock.stream->uncertainty_ns() : 0;
  for (; next_ns <= horizon_ns; next_ns += step)
    append({next_ns, deliver_ns, clock.stream, clock.epoch, uncertainty_ns, false, {}});
  return next_ns;
}

std::int64_t Triggers::step_ns() const {
  return own_ && by_packet_ && own_->measured() ? own_->period_ns() : rules_.every_ns;
}

std::int64_t Triggers::patience_ns() const { return kJumpNs + (own_ ? own_->idle_ns() : 0); }

std::int64_t Triggers::limit() const {
  return std::min(kMaxPending + rules_.wait_ns / step_ns() + resumed_, kMaxPendingEver);
}

void Triggers::append(Trigger trigger) {
  ++made_;
  const Clock key{trigger.clock, trigger.epoch};
  const std::int64_t back_ns = last_ns_ - trigger.t_ns;
  if (back_ns >= 0 && (key == last_clock_ || (key.stream != last_clock_.stream && back_ns <= kJumpNs))) {
    drops_.add(kLate);  // the hops of a source that was thought dead have been there before
    return;
  }
  last_ns_ = trigger.t_ns;
  last_clock_ = key;
  if (static_cast<std::int64_t>(pending_.size()) >= limit()) {
    drop_oldest();
    drops_.add(kSyncOverflow);
  }
  payloads_.retain(trigger.item.slot);
  pending_.push_back(trigger);
}

void Triggers::drop_oldest() {
  payloads_.release(pending_.front().item.slot);
  pending_.pop_front();
}

void Triggers::close() {
  while (!pending_.empty()) drop_oldest();
}

const Stream* Triggers::first_alive(std::int64_t now_ns) const {
  for (const Stream* stream : clocks_)
    if (stream->has_arrived() && stream->alive(now_ns)) return stream;
  return nullptr;
}

bool Triggers::ticks(std::int64_t now_ns) const {
  return rules_.ticking &&
         std::none_of(clocks_.begin(), clocks_.end(), [&](const Stream* s) { return s->alive(now_ns); }) &&
         std::any_of(streams_.begin(), streams_.end(),
                     [](const Stream* s) { return !s->ended() && s->has_arrived(); });
}

std::optional<std::int64_t> Triggers::next_tick_ns(std::int64_t now_ns) const {
  if (!rules_.ticking) return std::nullopt;
  // Where the last clock falls silent the time takes over.
  std::optional<std::int64_t> silent_ns;
  for (const Stream* stream : clocks_)
    if (stream->alive(now_ns))
      silent_ns = std::max(silent_ns.value_or(stream->silent_ns()), stream->silent_ns());
  if (silent_ns) return silent_ns;
  return ticks(now_ns) ? next_hop_ns_ : std::nullopt;
}

Triggers::Wanted Triggers::wanted() const {
  if (pending_.empty()) return {own_ && own_->ended_well() ? kForeverNs : last_ns_, kNoSlot};
  Wanted wanted{pending_.front().t_ns, kNoSlot};
  bool found = false;
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    wanted.t_ns = std::min(wanted.t_ns, pending_[i].t_ns);
    if (!found && pending_[i].by_packet && pending_[i].item.slot != kNoSlot) {
      wanted.slot = pending_[i].item.slot;
      found = true;
    }
  }
  return wanted;
}

}  // namespace mmedge
