// The stages of a bundle: at each trigger those that are due run, in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/moment.hpp"
#include "graph/runner.hpp"

namespace mmedge {

struct GraphStage {
  Runner* runner;
  std::vector<std::size_t> ancestors;  // places of the stages that feed it, directly or through others
  std::vector<std::size_t> peers;      // places of those that may run at the same time as this one
};

// The threads that stages run on, and what is known of how they ended. `at` is a stage's place; whatever
// these throw is thrown on.
class GraphHands {
 public:
  virtual ~GraphHands() = default;
  virtual void recorded(std::size_t at) = 0;  // throws what a recorded run failed with
  virtual void beside(std::size_t at) = 0;    // execute a stage, which was fed, beside what follows
  // Waits for what runs beside and has been started in `stages`, takes up what it gives; returns who failed.
  virtual std::vector<std::size_t> wait(const std::vector<std::size_t>& stages) = 0;
  virtual void start(std::size_t at) = 0;  // execute a stage, which was fed, in the background
  // Takes up a background run if it has ended; `lost`: nobody waits for it.
  virtual void take_up(std::size_t at, bool lost) = 0;
  // What a background run failed with, and was not told yet, matters to nobody.
  virtual void lose(std::size_t at) = 0;
};

// A trigger is begun, then run; after a failure `run` goes on behind the stage that failed, and without those
// that it feeds.
class Graph {
 public:
  // The stages are in topological order. `cores`: where there are two or more, heavy stages run on threads.
  Graph(std::vector<GraphStage> stages, std::size_t cores);

  // A trigger comes, or comes `again` without the seats of a stage that failed: what has run stays as it is.
  // Takes up what has come from the background: before anything else, so that it is decided once a trigger.
  void begin(const Moment& moment, bool again, GraphHands* hands);
  // Runs what is due and what the trigger waits for, and raises the moment's ages to those of outputs that
  // were not made anew. When it throws, `at` is the stage that failed.
  void run(Moment* moment, GraphHands* hands);
  // Starts what is due in the background.
  void run_late(const Moment& moment, GraphHands* hands);

  std::size_t at() const { return at_ - 1; }
  // Stages that have no output, and run in the background for one: the trigger goes on without their seats.
  bool pending(std::size_t at) const { return is(at, kPending); }
  bool any_pending() const { return any_pending_; }
  // Whether outputs of the stage are used at this trigger.
  bool used(std::size_t at) const { return is(at, kUsed); }
  // Since `begin`: what filling and running took.
  std::int64_t feeding_ns() const { return feeding_ns_; }
  std::int64_t running_ns() const { return running_ns_; }

 private:
  enum Mark : std::uint8_t { kFailed = 1, kPending = 2, kBeside = 4, kLate = 8, kUsed = 16 };

  bool is(std::size_t at, Mark mark) const { return (marks_[at] & mark) != 0; }
  void mark(std::size_t at, Mark mark) { marks_[at] = static_cast<std::uint8_t>(marks_[at] | mark); }
  void visit(std::size_t at, Moment* moment, GraphHands* hands);
  void miss(std::size_t at);
  bool lacks_input(std::size_t at) const;
  bool had_better_run_beside(std::size_t at) const;
  void wait(const std::vector<std::size_t>& stages, GraphHands* hands);
  void feed(std::size_t at, const Moment& moment, std::uint64_t bits);
  void start(std::size_t at, const Moment& moment, GraphHands* hands);
  void execute(std::size_t at, GraphHands* hands);

  std::vector<GraphStage> stages_;
  std::vector<std::size_t> all_, background_;
  std::size_t cores_;
  std::vector<std::uint8_t> marks_;
  std::size_t at_ = 0, late_ = 0, beside_ = 0;  // the next stage, the next late one, how many run beside
  bool again_ = false, any_failed_ = false, any_pending_ = false;
  std::int64_t feeding_ns_ = 0, running_ns_ = 0;
};

}  // namespace mmedge
