#include "statistics/trigger_times.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr double kLongestMs = 9e12;  // 285 years: what is longer does not fit into ns of 64 bits

std::int64_t to_ns(double ms) {
  if (!(std::fabs(ms) <= kLongestMs))
    throw std::invalid_argument("skew and uncertainty must be finite times");
  return std::llrint(ms * 1e6);  // to the nearest, a tie to the even one
}

}  // namespace

TriggerTimes::Latency TriggerTimes::add(const Stamps& stamps) {
  const std::int64_t skew = to_ns(stamps.skew_ms), uncertainty = to_ns(stamps.uncertainty_ms);
  const auto positive = [](std::int64_t ns) { return std::max<std::int64_t>(ns, 0); };
  Latency found{};
  found.from = origin_ == Origin::kCapture    ? stamps.capture
               : origin_ == Origin::kDelivery ? stamps.delivered
                                              : stamps.start;
  found.end_to_end = positive(stamps.end - found.from);
  found.deliver = origin_ == Origin::kCapture ? positive(stamps.delivered - found.from) : 0;
  found.ready = origin_ == Origin::kCall ? 0 : stamps.waited;
  found.preprocessed = stamps.preprocessing;
  found.inferred = stamps.engines;
  found.interpreted = stamps.end - stamps.inferred;
  found.overhead = positive(found.end_to_end - found.inferred - found.deliver - found.ready);
  to_.end_to_end->add(found.end_to_end);
  to_.overhead->add(found.overhead);
  to_.deliver->add(found.deliver);
  to_.ready->add(found.ready);
  to_.preprocessed->add(found.preprocessed);
  to_.inferred->add(found.inferred);
  to_.interpreted->add(found.interpreted);
  if (origin_ == Origin::kCapture) to_.stamps->add(stamps.stamp_uncertainty);
  to_.skew->add(skew);
  to_.uncertainty->add(uncertainty);
  return found;
}

TriggerTimes::Steps steps_of(const TriggerTimes::Latency& ns) {
  return {{{"end_to_end", ns.end_to_end},
           {"overhead", ns.overhead},
           {"deliver", ns.deliver},
           {"ready", ns.ready},
           {"preprocessed", ns.preprocessed},
           {"inferred", ns.inferred},
           {"interpreted", ns.interpreted}}};
}

}  // namespace mmedge
