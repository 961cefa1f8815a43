#include "graph/stretch.hpp"

#include <algorithm>
#include <utility>

namespace mmedge {
namespace {

// Adds what a run took, however it ends.
class Spending {
 public:
  Spending(std::int64_t* total_ns, const std::int64_t& spent_ns) : total_ns_(total_ns), spent_ns_(spent_ns) {}
  ~Spending() { *total_ns_ += spent_ns_; }
  Spending(const Spending&) = delete;
  Spending& operator=(const Spending&) = delete;

 private:
  std::int64_t* const total_ns_;
  const std::int64_t& spent_ns_;
};

}  // namespace

Stretch::Stretch(std::vector<StretchStage> stages, std::size_t cores)
    : stages_(std::move(stages)), cores_(cores) {}

void Stretch::begin() {
  for (const StretchStage& each : stages_) each.runner->stage().ran = false;
}

void Stretch::run(Moment* moment) {
  feeding_ns_ = running_ns_ = 0;
  for (at_ = 0; at_ < stages_.size(); ++at_) {
    const StretchStage& each = stages_[at_];
    Runner& runner = *each.runner;
    Stage& stage = runner.stage();
    const std::uint64_t bits = stage.hears(moment->bits), depends = stage.rules().depends;
    if (depends != 0 && (bits & depends) == 0) {
      runner.absent();
      continue;
    }
    if (runner.due(*moment, bits)) {
      if (had_better_run_beside(each)) return;
      feed(&runner, *moment, bits);
      execute(&runner);
      runner.finish();
    }
    if (!is_cold(stage.life)) stage.age(moment);
  }
}

void Stretch::feed(Runner* runner, const Moment& moment, std::uint64_t bits) {
  const Spending spending(&feeding_ns_, runner->stage().feed_ns);
  runner->feed(moment, bits);
}

void Stretch::execute(Runner* runner) {
  const Spending spending(&running_ns_, runner->stage().took_ns);
  runner->execute();
}

bool Stretch::had_better_run_beside(const StretchStage& each) const {
  if (cores_ < 2 || each.runner->stage().cost_ns < Stage::kHeavyNs) return false;
  return std::any_of(each.peers.begin(), each.peers.end(),
                     [](const Stage* peer) { return peer->cost_ns >= Stage::kHeavyNs; });
}

}  // namespace mmedge
