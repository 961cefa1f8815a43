// A stage that hears sound in steps of equal length, each once, whenever triggers come.
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/runner.hpp"

namespace mmedge {

// What it hears: steps of one seat's sound, in samples, each in a window that ends with it.
struct Hearing {
  std::size_t seat;
  std::int64_t step, window, rate_hz;
};

// Steps are counted from the start of the sound's epoch. While the sound is absent it gives zeros and keeps
// its state: what it has not heard yet it hears later. Before its first step, in a new epoch as well, and
// after a failure it has heard nothing.
class StreamRunner final : public Runner {
 public:
  StreamRunner(Stage* stage, Hearing hearing);

  // Begins with the newest step at the next trigger: it came into a run that goes on.
  void join() {
    known_ = false;
    joins_ = true;
  }
  // How often sound was overwritten before it was heard; the state begins anew behind it.
  std::int64_t overruns() const { return overruns_; }

  bool due(const Moment& moment, std::uint64_t bits) override;
  void absent() override { hide(); }
  // The steps that have come are not tried again.
  void fail() override;

 private:
  void feed_states(const Moment& moment) override;
  std::int64_t stamp(const Moment& moment) const override;
  void compute() override;
  void hide();

  const Hearing hearing_;
  const Moment* moment_ = nullptr;  // what it runs for
  std::int64_t heard_ = 0;          // the samples before this one
  std::int64_t steps_ = 0;          // that have come since
  bool known_ = false, joins_ = false;
  std::int64_t epoch_ = 0, begin_ = 0;  // that it counts from, if it is known
  std::int64_t overruns_ = 0;
};

}  // namespace mmedge
