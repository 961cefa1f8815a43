// Feeds and runs one stage.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

#include "graph/moment.hpp"
#include "graph/stage.hpp"
#include "graph/tensors.hpp"

namespace mmedge {

// What only the owner of a stage can do; whatever these throw ends what they are called for.
class StageHands {
 public:
  virtual ~StageHands() = default;
  virtual void fill(const Moment& moment) = 0;  // write the tensors that seats feed
  virtual void hear(const Moment& moment,
                    std::int64_t end) = 0;         // write the sound before a sample: of a stream
  virtual bool differs(const Moment& moment) = 0;  // whether a value is another one than was fed
  virtual void fed(const Moment& moment) = 0;      // all tensors are written
  virtual void run() = 0;                          // run the engine
  virtual void infinite() = 0;                     // its outputs are not finite: throw
};

class Runner {
 public:
  // `stage` lives as long as it does.
  explicit Runner(Stage* stage) : stage_(stage) {}
  virtual ~Runner() = default;
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // Takes an engine and arrays, or others than it had: a run that goes on keeps its own. It comes before
  // everything else.
  void serve(std::unique_ptr<Tensors> tensors, std::unique_ptr<StageHands> hands) {
    served_ = std::make_shared<Served>(Served{std::move(tensors), std::move(hands)});
  }

  // Tells whether it must run. `bits` are the seats that are present to it.
  virtual bool due(const Moment& moment, std::uint64_t bits);
  // Writes every input. The moment stays as it is until the stage has run.
  void feed(const Moment& moment, std::uint64_t bits);
  // Runs the engine on what was fed and looks at its outputs; nothing else is touched, so any thread may do
  // it.
  void execute();
  // Its outputs are those of the run from now on.
  void finish();
  // Takes up a background run that has ended, well or not.
  void take_up(bool failed);
  // None of its seats is there: gives zeros.
  virtual void absent() { reset(); }
  // Forgets its outputs and states; those of a background run are thrown away when it ends.
  void reset();
  // Forgets everything after a failure.
  virtual void fail();
  // Forgets a run that failed beside another one, which is told first: it is tried again.
  void discard();
  // Begins with empty states.
  void forget() {
    stage_->carry = false;
    tensors().forget();
  }

  Stage& stage() { return *stage_; }
  const Stage& stage() const { return *stage_; }

 protected:
  virtual void feed_states(const Moment& moment);
  // The capture time that a run for this trigger belongs to.
  virtual std::int64_t stamp(const Moment& moment) const { return moment.t_ns; }
  virtual void compute();

  Tensors& tensors() { return *checked(served_).tensors; }
  StageHands& hands() { return *checked(served_).hands; }

 private:
  struct Served {
    std::unique_ptr<Tensors> tensors;
    std::unique_ptr<StageHands> hands;
  };

  static Served& checked(const std::shared_ptr<Served>& served) {
    if (served == nullptr) throw std::logic_error("the stage has no engine yet, or was not fed");
    return *served;
  }
  void wipe() {
    stage_->carry = false;
    tensors().wipe();
  }

  Stage* stage_;
  std::shared_ptr<Served> served_, fed_;  // the newest, and those of the newest run
};

}  // namespace mmedge
