// The rings that pictures of a pipeline's inputs lie in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "slot_ring.hpp"

namespace mmedge::attach {

// By number; of each input the newest two, since results that still wait may tell of the one before. A ring
// that is forgotten stays mapped as long as somebody shares it.
class PictureRings {
 public:
  void add(std::uint32_t number, std::string input, SlotRing ring) {
    const auto same = [&](const Known& known) { return known.input == input; };
    if (std::count_if(known_.begin(), known_.end(), same) >= kKept)
      known_.erase(std::find_if(known_.begin(), known_.end(), same));
    known_.push_back({number, std::move(input), std::make_shared<const SlotRing>(std::move(ring))});
  }

  // nullptr where there is none of that number.
  std::shared_ptr<const SlotRing> find(std::uint32_t number) const {
    for (auto at = known_.rbegin(); at != known_.rend(); ++at)
      if (at->number == number) return at->ring;
    return nullptr;
  }

 private:
  static constexpr std::ptrdiff_t kKept = 2;

  struct Known {
    std::uint32_t number;
    std::string input;
    std::shared_ptr<const SlotRing> ring;
  };

  std::vector<Known> known_;
};

}  // namespace mmedge::attach
