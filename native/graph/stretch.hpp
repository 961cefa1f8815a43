// Stages that follow each other and are run as they are due, one after the other, in one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/moment.hpp"
#include "graph/runner.hpp"
#include "graph/stage.hpp"

namespace mmedge {

struct StretchStage {
  Runner* runner;
  std::vector<const Stage*> peers;  // that may run at the same time as this one
};

class Stretch {
 public:
  // `cores`: heavy stages are left to threads where there are two or more.
  Stretch(std::vector<StretchStage> stages, std::size_t cores);

  // A new trigger: none of its stages has run for it.
  void begin();
  // Runs what is due, and raises the moment's ages to those of outputs that were not made anew. Ends before a
  // stage that had better run beside another one. `at` is the stage that it ended before, or at which it
  // threw.
  void run(Moment* moment);

  std::size_t at() const { return at_; }
  // Of the newest `run`: what filling and running took.
  std::int64_t feeding_ns() const { return feeding_ns_; }
  std::int64_t running_ns() const { return running_ns_; }

 private:
  bool had_better_run_beside(const StretchStage& each) const;
  void feed(Runner* runner, const Moment& moment, std::uint64_t bits);
  void execute(Runner* runner);

  std::vector<StretchStage> stages_;
  std::size_t cores_, at_ = 0;
  std::int64_t feeding_ns_ = 0, running_ns_ = 0;
};

}  // namespace mmedge
