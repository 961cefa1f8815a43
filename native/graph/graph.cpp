#include "graph/graph.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
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

// Whether a stage has seats, and none is among `bits`.
bool is_away(const Stage& stage, std::uint64_t bits) {
  const std::uint64_t depends = stage.rules().depends;
  return depends != 0 && (bits & depends) == 0;
}

}  // namespace

Graph::Graph(std::vector<GraphStage> stages, std::size_t cores)
    : stages_(std::move(stages)), all_(stages_.size()), cores_(cores), marks_(stages_.size(), 0) {
  std::iota(all_.begin(), all_.end(), std::size_t{0});
  for (std::size_t at = 0; at < stages_.size(); ++at) {
    const GraphStage& each = stages_[at];
    if (each.runner->stage().rules().background) background_.push_back(at);
    const auto is_before = [at](std::size_t other) { return other < at; };
    const auto is_place = [this](std::size_t other) { return other < stages_.size(); };
    if (!std::all_of(each.ancestors.begin(), each.ancestors.end(), is_before) ||
        !std::all_of(each.peers.begin(), each.peers.end(), is_place))
      throw std::invalid_argument("there is no such stage, or it comes too late");
  }
}

void Graph::begin(const Moment& moment, bool again, GraphHands* hands) {
  at_ = late_ = beside_ = 0;
  again_ = again;
  any_failed_ = any_pending_ = false;
  feeding_ns_ = running_ns_ = 0;
  std::fill(marks_.begin(), marks_.end(), std::uint8_t{0});
  if (!again)
    for (const GraphStage& each : stages_) each.runner->stage().ran = false;
  for (const std::size_t at : background_) {
    const Stage& stage = stages_[at].runner->stage();
    const bool away = is_away(stage, moment.bits);
    if (!again && stage.running) hands->take_up(at, away || stage.life == Life::kStale);
    if (!away) continue;
    if (again) hands->lose(at);
    miss(at);
  }
}

void Graph::run(Moment* moment, GraphHands* hands) {
  while (at_ < stages_.size()) {
    const std::size_t at = at_++;
    try {
      visit(at, moment, hands);
    } catch (...) {
      mark(at, kFailed);
      any_failed_ = true;
      throw;
    }
  }
  if (beside_ > 0) wait(all_, hands);
}

void Graph::visit(std::size_t at, Moment* moment, GraphHands* hands) {
  Runner& runner = *stages_[at].runner;
  Stage& stage = runner.stage();
  if (beside_ > 0 && stage.behind()) wait(stages_[at].ancestors, hands);  // what it hears of is known then
  const std::uint64_t bits = stage.hears(moment->bits);
  if (is_away(stage, bits)) {
    miss(at);
    return;
  }
  if (stage.in_background()) {
    if (!stage.running) mark(at, kLate);
  } else {
    if (beside_ > 0) wait(stages_[at].ancestors, hands);
    // What does not need those that failed runs all the same: so it does where it had been started before.
    if ((any_failed_ || any_pending_) && lacks_input(at)) return;
    if (stage.rules().background && is_pending(stage.life)) {
      if (!stage.running) {
        feed(at, *moment, bits);
        start(at, *moment, hands);
      }
      mark(at, kPending);
      any_pending_ = true;
    } else if (runner.due(*moment, bits)) {
      feed(at, *moment, bits);
      execute(at, hands);
    }
  }
  if (is_cold(stage.life) && !is(at, kBeside)) return;
  mark(at, kUsed);
  stage.age(moment);
}

void Graph::run_late(const Moment& moment, GraphHands* hands) {
  while (late_ < stages_.size()) {
    const std::size_t at = late_++;
    if (!is(at, kLate)) continue;
    at_ = at + 1;
    Runner& runner = *stages_[at].runner;
    const std::uint64_t bits = runner.stage().hears(moment.bits);
    if (!runner.due(moment, bits)) continue;
    feed(at, moment, bits);
    start(at, moment, hands);
  }
}

// Lets a stage know that its inputs are away, unless it is itself why.
void Graph::miss(std::size_t at) {
  Runner& runner = *stages_[at].runner;
  if (!again_ || !is_pending(runner.stage().life)) runner.absent();
}

bool Graph::lacks_input(std::size_t at) const {
  const std::vector<std::size_t>& ancestors = stages_[at].ancestors;
  return std::any_of(ancestors.begin(), ancestors.end(),
                     [&](std::size_t other) { return is(other, kFailed) || is(other, kPending); });
}

bool Graph::had_better_run_beside(std::size_t at) const {
  const auto is_heavy = [&](std::size_t other) {
    return stages_[other].runner->stage().cost_ns >= Stage::kHeavyNs;
  };
  const std::vector<std::size_t>& peers = stages_[at].peers;
  return cores_ > 1 && is_heavy(at) && std::any_of(peers.begin(), peers.end(), is_heavy);
}

void Graph::wait(const std::vector<std::size_t>& stages, GraphHands* hands) {
  bool any = false;
  for (const std::size_t at : stages) {
    if (!is(at, kBeside)) continue;
    any = true;
    marks_[at] = static_cast<std::uint8_t>(marks_[at] & ~kBeside);
    --beside_;
  }
  if (!any) return;
  for (const std::size_t at : hands->wait(stages)) {
    mark(at, kFailed);
    any_failed_ = true;
  }
}

void Graph::feed(std::size_t at, const Moment& moment, std::uint64_t bits) {
  Runner& runner = *stages_[at].runner;
  const Spending spending(&feeding_ns_, runner.stage().feed_ns);
  runner.feed(moment, bits);
}

void Graph::start(std::size_t at, const Moment& moment, GraphHands* hands) {
  stages_[at].runner->stage().start(moment.t_ns);
  hands->start(at);
}

void Graph::execute(std::size_t at, GraphHands* hands) {
  Runner& runner = *stages_[at].runner;
  hands->recorded(at);
  if (had_better_run_beside(at)) {
    hands->beside(at);
    mark(at, kBeside);
    ++beside_;
    return;
  }
  {
    const Spending spending(&running_ns_, runner.stage().took_ns);
    runner.execute();
  }
  runner.finish();
}

}  // namespace mmedge
