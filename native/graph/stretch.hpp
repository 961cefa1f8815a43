// Stages that follow each other and are run as they are due, one after the other, in one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/moment.hpp"
#include "graph/stage.hpp"

namespace mmedge {

// An array that is copied to another one of the same size before each run.
struct Link {
  const void* from;
  void* to;
  std::size_t bytes;
};

// A row of one number a seat: 1 where it is present, or its age in ms.
struct SeatRow {
  float* values;
  bool presence;
};

// Numbers of 2, 4 or 8 bytes that must be finite after each run.
struct Numbers {
  const void* values;
  std::size_t n, bytes;
};

// What a stage of a stretch needs beside what it knows. Its arrays stay where they are.
struct StageWork {
  Stage* stage;
  std::vector<Link> links;
  std::vector<SeatRow> rows;
  std::vector<Numbers> outputs;
  std::vector<const Stage*> peers;  // that may run at the same time as this one
};

// What only the owner of a stage can do; whatever these throw ends the stretch. `at` counts its stages.
class StageHands {
 public:
  virtual ~StageHands() = default;
  virtual void fill(std::size_t at) = 0;      // write the tensors that seats feed
  virtual void fed(std::size_t at) = 0;       // all tensors are written
  virtual void run(std::size_t at) = 0;       // run the engine
  virtual void infinite(std::size_t at) = 0;  // its outputs are not finite: throw
  virtual void absent(std::size_t at) = 0;    // none of its seats is there: outputs and states become zeros
};

class Stretch {
 public:
  // `cores`: heavy stages are left to threads where there are two or more.
  Stretch(std::vector<StageWork> stages, std::size_t cores);

  // A new trigger: none of its stages has run for it.
  void begin();
  // Runs what is due, and raises the moment's ages to those of outputs that were not made anew. Ends before a
  // stage that had better run beside another one. `at` is the stage that it ended before, or at which it
  // threw.
  void run(Moment* moment, StageHands* hands);

  std::size_t at() const { return at_; }
  // Of the newest `run`: what filling and running took.
  std::int64_t feeding_ns() const { return feeding_ns_; }
  std::int64_t running_ns() const { return running_ns_; }

 private:
  bool had_better_run_beside(const StageWork& work) const;
  void feed(const StageWork& work, const Moment& moment, StageHands* hands);
  void execute(const StageWork& work, StageHands* hands);

  std::vector<StageWork> stages_;
  std::size_t cores_, at_ = 0;
  std::int64_t feeding_ns_ = 0, running_ns_ = 0;
};

}  // namespace mmedge
