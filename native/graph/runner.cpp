#include "graph/runner.hpp"

#include <algorithm>
#include <chrono>

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

bool Runner::due(const Moment& moment, std::uint64_t bits) {
  const Stage::Due due = stage_->due(moment, bits);
  const Stage::Rules& rules = stage_->rules();
  if (due != Stage::Due::kIfDifferent || !rules.differs) return due != Stage::Due::kNo;
  if (tensors().differ() || hands().differs(moment)) return true;
  // Pictures and sound that are new never are the same.
  const auto is_another = [&](std::size_t seat) {
    return !(moment.values >> seat & 1) && stage_->is_new(moment, seat);
  };
  if (std::any_of(rules.watches.begin(), rules.watches.end(), is_another)) return true;
  stage_->see(moment, bits);
  return false;
}

void Runner::feed(const Moment& moment, std::uint64_t bits) {
  const Stopwatch watch([&](std::int64_t from_ns, std::int64_t until_ns) { stage_->fed(from_ns, until_ns); });
  if (!stage_->in_background()) stage_->t_ns = stamp(moment);
  if (fed_ != served_) fed_ = served_;
  stage_->blank = false;
  stage_->schedule(moment.t_ns);
  if (tensors().stateful) feed_states(moment);
  hands().fill(moment);
  tensors().feed(moment, bits);
  stage_->see(moment, bits);
  hands().fed(moment);
}

void Runner::feed_states(const Moment& moment) {
  if (stage_->turn(moment)) forget();
  // A second run for one trigger starts where the first one did.
  if (stage_->carry && !stage_->ran) tensors().carry();
}

void Runner::execute() {
  const Stopwatch watch(
      [&](std::int64_t from_ns, std::int64_t until_ns) { stage_->took(from_ns, until_ns); });
  compute();
}

void Runner::compute() {
  const Served& fed = checked(fed_);
  fed.hands->run();
  if (!fed.tensors->finite()) fed.hands->infinite();
}

void Runner::finish() {
  stage_->finish();
  tensors().publish();
}

void Runner::take_up(bool failed) {
  const bool wanted = stage_->take_up();
  if (!wanted) wipe();
  if (failed) return;
  if (wanted) {
    finish();
    stage_->t_ns = stage_->started_ns();
  }
  stage_->ran = false;
}

void Runner::reset() {
  stage_->faulty = false;
  if (stage_->is_empty()) {
    if (stage_->life == Life::kFailed) stage_->life = Life::kCold;
    return;
  }
  stage_->fall();
  tensors().clear();
  if (!stage_->running) wipe();  // otherwise the engine's arrays are in use until its end
}

void Runner::fail() {
  reset();
  if (!stage_->rules().background) return;
  stage_->faulty = true;
  if (stage_->life == Life::kCold) stage_->life = Life::kFailed;
}

void Runner::discard() {
  stage_->forget_seen();
  stage_->carry = false;
}

}  // namespace mmedge
