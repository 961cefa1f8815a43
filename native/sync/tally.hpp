// Counts by cause, in the order in which the causes first occurred.
#pragma once

#include <cstdint>
#include <vector>

namespace mmedge {

// Why a packet or a trigger became nothing. A trigger that input number i let skip is counted as kSkip + i.
enum Cause : int { kTaken, kOldEpoch, kTimeBackwards, kOverrun, kLate, kSyncOverflow, kSkip };

class Tally {
 public:
  struct Count {
    int cause;
    std::int64_t n;
  };

  void add(int cause, std::int64_t n = 1) {
    for (Count& count : counts_) {
      if (count.cause == cause) {
        count.n += n;
        return;
      }
    }
    counts_.push_back({cause, n});
  }
  const std::vector<Count>& counts() const { return counts_; }

 private:
  std::vector<Count> counts_;
};

}  // namespace mmedge
