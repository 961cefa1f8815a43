// A label is told once it has lasted.
#pragma once

#include <cstdint>

namespace mmedge {

// Tells a label only after it has been the same for `hold_ms`, until then the one before it. To abstain (-1)
// is a label like any other; before the first one has lasted that long, none is told.
class Debounce {
 public:
  explicit Debounce(double hold_ms) : hold_ns_(hold_ms * 1e6) {}

  // Returns the label to tell at `t_ns`.
  int tell(int label, std::int64_t t_ns) {
    if (!begun_ || label != new_) {
      new_ = label;
      since_ns_ = t_ns;
      begun_ = true;
    }
    if (static_cast<double>(t_ns - since_ns_) >= hold_ns_) told_ = label;
    return told_;
  }

  void reset() {
    told_ = new_ = -1;
    begun_ = false;
  }

 private:
  double hold_ns_;
  int told_ = -1, new_ = -1;
  bool begun_ = false;
  std::int64_t since_ns_ = 0;
};

}  // namespace mmedge
