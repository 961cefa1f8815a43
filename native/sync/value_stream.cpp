#include "sync/value_stream.hpp"

#include <algorithm>

namespace mmedge {
namespace {

StreamRules lively(StreamRules rules, bool has_rate) {
  rules.live = rules.live && has_rate;
  return rules;
}

}  // namespace

ValueStream::ValueStream(StreamRules rules, const Rules& values, Payloads& payloads)
    : Stream(lively(rules, values.period_ns.has_value())),
      payloads_(payloads),
      ttl_ns_(values.ttl_ns ? values.ttl_ns : rules.max_age_ns) {
  waits_ = values.period_ns.has_value();
  paced_ = values.paced;
  if (!values.period_ns) return;
  rank_ = 2;
  period_ns_ = std::clamp(*values.period_ns, kMinPeriodNs, kMaxPeriodNs);
  idle_ns_ = std::max(kIdleNs, 3 * period_ns_);
}

Pushed ValueStream::push(const Stamp& stamp, Item item) {
  item.capture_ns = stamp.capture_ns;
  item.uncertainty_ns = stamp.uncertainty_ns;
  if (!has_arrived()) first_ns_ = stamp.capture_ns;
  const Cause cause = passed(stamp);
  if (cause != kTaken) return {cause, item};
  if (values_.size() == kMaxValues) drop_oldest();
  item.slot = payloads_.acquire();
  values_.push_back(item);
  return {kTaken, item};
}

Cause ValueStream::passed(const Stamp& stamp) {
  const Cause cause = seen(stamp);
  if (cause == kTaken && fresh()) close();
  return cause;
}

bool ValueStream::starting(std::int64_t t_ns, std::int64_t now_ns) const {
  return Stream::starting(t_ns, now_ns) || (!ranked() && t_ns < first_ns_);
}

void ValueStream::drop_oldest() {
  payloads_.release(values_.front().slot);
  values_.pop_front();
}

void ValueStream::trim(std::int64_t keep_from_ns, Slot) {
  while (values_.size() > 1 && values_[1].capture_ns <= keep_from_ns) drop_oldest();
}

void ValueStream::close() {
  while (!values_.empty()) drop_oldest();
}

Cut ValueStream::cut(std::int64_t t_ns, bool latest) const {
  for (std::size_t index = values_.size(); index-- > 0;)
    if (latest || values_[index].capture_ns <= t_ns) return admit(values_[index], t_ns);
  return gone();
}

Cut ValueStream::admit(const Item& value, std::int64_t t_ns) const {
  if (value.blank) return absent(kTakenBack);
  const std::int64_t age_ns = t_ns - value.capture_ns;
  const std::optional<std::int64_t> limit_ns = ttl_ns_ || !ranked() ? ttl_ns_ : idle_ns();
  if (limit_ns && age_ns > *limit_ns) return absent(kTooOld, age_ns);
  Cut cut;
  cut.slot = value.slot;
  cut.epoch = epoch();
  cut.uncertainty_ns = value.uncertainty_ns;
  cut.age_ns = std::max<std::int64_t>(age_ns, 0);
  return cut;
}

}  // namespace mmedge
