#include "graph/stretch.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "finite.hpp"

namespace mmedge {
namespace {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Calls `over` with when it was made and when it is destroyed, whatever happens until then.
template <typename Over>
class Stopwatch {
 public:
  explicit Stopwatch(Over over) : over_(std::move(over)), from_ns_(now_ns()) {}
  ~Stopwatch() { over_(from_ns_, now_ns()); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  Over over_;
  std::int64_t from_ns_;
};

}  // namespace

Stretch::Stretch(std::vector<StageWork> stages, std::size_t cores)
    : stages_(std::move(stages)), cores_(cores) {}

void Stretch::begin() {
  for (const StageWork& work : stages_) work.stage->ran = false;
}

void Stretch::run(Moment* moment, StageHands* hands) {
  feeding_ns_ = running_ns_ = 0;
  for (at_ = 0; at_ < stages_.size(); ++at_) {
    const StageWork& work = stages_[at_];
    Stage& stage = *work.stage;
    const std::uint64_t depends = stage.rules().depends;
    if (depends != 0 && (moment->bits & depends) == 0) {
      // What is blank has nothing to forget.
      if (!stage.blank || stage.has_seen()) hands->absent(at_);
      continue;
    }
    if (stage.due(*moment, moment->bits) != Stage::Due::kNo) {
      if (had_better_run_beside(work)) return;
      feed(work, *moment, hands);
      execute(work, hands);
    }
    if (!is_cold(stage.life)) stage.age(moment);
  }
}

bool Stretch::had_better_run_beside(const StageWork& work) const {
  if (cores_ < 2 || work.stage->cost_ns < Stage::kHeavyNs) return false;
  return std::any_of(work.peers.begin(), work.peers.end(),
                     [](const Stage* peer) { return peer->cost_ns >= Stage::kHeavyNs; });
}

void Stretch::feed(const StageWork& work, const Moment& moment, StageHands* hands) {
  Stage& stage = *work.stage;
  const Stopwatch watch(
      [&](std::int64_t from_ns, std::int64_t until_ns) { feeding_ns_ += stage.fed(from_ns, until_ns); });
  stage.t_ns = moment.t_ns;
  stage.blank = false;
  stage.schedule(moment.t_ns);
  hands->fill(at_);
  for (const Link& link : work.links) std::memcpy(link.to, link.from, link.bytes);
  for (const SeatRow& row : work.rows) {
    for (std::size_t seat = 0; seat < moment.marks.size(); ++seat) {
      const bool there = moment.bits >> seat & 1;
      row.values[seat] = row.presence ? static_cast<float>(there)
                         : there      ? static_cast<float>(moment.ages_ms[seat])
                                      : 0.0f;
    }
  }
  stage.see(moment, moment.bits);
  hands->fed(at_);
}

void Stretch::execute(const StageWork& work, StageHands* hands) {
  Stage& stage = *work.stage;
  {
    const Stopwatch watch(
        [&](std::int64_t from_ns, std::int64_t until_ns) { running_ns_ += stage.took(from_ns, until_ns); });
    hands->run(at_);
    for (const Numbers& output : work.outputs) {
      if (!all_finite(output.values, output.n, output.bytes)) {
        hands->infinite(at_);
        break;
      }
    }
  }
  stage.finish();
}

}  // namespace mmedge
