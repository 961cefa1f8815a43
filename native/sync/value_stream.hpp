// Texts and arrays in the synchroniser.
#pragma once

#include "sync/fifo.hpp"
#include "sync/stream.hpp"

namespace mmedge {

// A step function: the newest text or array whose time has come.
//
// With a rate it is waited for, and silence ends it; without one a value is valid until the next. A blank
// text takes the one before back.
class ValueStream final : public Stream {
 public:
  struct Rules {
    std::optional<std::int64_t> ttl_ns;     // for how long a value is valid
    std::optional<std::int64_t> period_ns;  // of values that keep a rate
    bool paced = false;                     // whether their steps are worth learning
  };
  ValueStream(StreamRules rules, const Rules& values, Payloads& payloads);

  // Takes a value of which `item` tells whether it is `blank`.
  Pushed push(const Stamp& stamp, Item item);

  // Takes the times of a value, which may be the first of an epoch.
  Cause passed(const Stamp& stamp) override;
  // The first text may come after a picture that waits.
  bool starting(std::int64_t t_ns, std::int64_t now_ns) const override;
  Cut cut(std::int64_t t_ns, bool latest) const override;
  Cut admit(const Item& value, std::int64_t t_ns) const override;
  std::size_t kept() const override { return values_.size(); }
  void trim(std::int64_t keep_from_ns, Slot wanted) override;
  void close() override;

 private:
  void drop_oldest();

  Payloads& payloads_;
  std::optional<std::int64_t> ttl_ns_;
  Fifo<Item> values_;  // bounded for callers that never trim
  std::int64_t first_ns_ = -kForeverNs;
};

}  // namespace mmedge
