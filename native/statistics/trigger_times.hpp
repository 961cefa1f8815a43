// The times of one trigger: counted, and what its result says of them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "statistics/histogram.hpp"

namespace mmedge {

// Where latency counts from: when the trigger's data was sensed; when they reached this process; or the call
// itself.
enum class Origin { kCapture, kDelivery, kCall };

class TriggerTimes {
 public:
  // ns on CLOCK_MONOTONIC, and how long something took.
  struct Stamps {
    std::int64_t capture, delivered, start, inferred, end;
    std::int64_t waited, preprocessing, engines;
    std::int64_t stamp_uncertainty;
    double skew_ms, uncertainty_ms;
  };
  // Where its times are counted; they outlive this object.
  struct Histograms {
    Histogram *end_to_end, *overhead, *deliver, *ready, *preprocessed, *inferred, *interpreted;
    Histogram *stamps, *skew, *uncertainty;
  };
  // ns.
  struct Latency {
    std::int64_t from, end_to_end, overhead, deliver, ready, preprocessed, inferred, interpreted;
  };

  // The steps of a result by their names.
  using Steps = std::array<std::pair<std::string_view, std::int64_t>, 7>;

  TriggerTimes(Origin origin, const Histograms& histograms) : origin_(origin), to_(histograms) {}

  // Throws std::invalid_argument if skew or uncertainty is not finite. Never allocates.
  Latency add(const Stamps& stamps);

 private:
  Origin origin_;
  Histograms to_;
};

TriggerTimes::Steps steps_of(const TriggerTimes::Latency& ns);

}  // namespace mmedge
