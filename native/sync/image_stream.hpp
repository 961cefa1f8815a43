// Pictures in the synchroniser.
#pragma once

#include "sync/fifo.hpp"
#include "sync/stream.hpp"

namespace mmedge {

// The newest frames; the one nearest to the trigger is cut.
//
// A damaged picture makes its trigger and shows that its camera is alive, but counts as absent. Where the
// policy is `hold`, the last good one stands for it.
class ImageStream final : public Stream {
 public:
  ImageStream(const StreamRules& rules, Payloads& payloads);

  // Takes a frame of which `item` tells `unchanged_ns` and `damaged`.
  Pushed push(const Stamp& stamp, Item item);

  // Takes the times of a frame that was let go; it may be the first of an epoch.
  Cause passed(const Stamp& stamp) override;
  bool let_go_near(std::int64_t t_ns) const override;
  Cut cut(std::int64_t t_ns, bool latest) const override;
  Cut admit(const Item& frame, std::int64_t t_ns) const override;
  std::size_t kept() const override { return frames_.size(); }
  void trim(std::int64_t keep_from_ns, Slot wanted) override;
  void close() override;

 private:
  void begin();
  void drop_oldest();
  // How old a frame may be.
  std::int64_t limit_ns() const { return hold_ns().value_or(period_ns()); }
  bool damaged_near(std::int64_t t_ns) const;
  Cut last_good(std::int64_t t_ns) const;

  Payloads& payloads_;
  Fifo<Item> frames_;
  Fifo<std::int64_t> let_go_;  // capture times, of this epoch
  std::size_t old_ = 0;  // this many frames are of earlier epochs: only the triggers they made may want them
  std::int64_t damaged_ns_ = -kForeverNs;  // capture time of the newest damaged one of this epoch
};

}  // namespace mmedge
