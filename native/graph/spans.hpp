// Which stages have run since it was last asked, and when: one trigger's part of a time line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "graph/stage.hpp"

namespace mmedge {

class Spans {
 public:
  static constexpr std::size_t kNumbers =
      5;  // of each run: the stage's place, and the four times of its span

  // The stages live as long as it does.
  explicit Spans(std::vector<const Stage*> stages)
      : stages_(std::move(stages)), told_ns_(stages_.size(), 0), numbers_(kNumbers * stages_.size()) {}

  // Returns how many stages have ended a run since the last call; their numbers are in `numbers`. Never
  // allocates.
  std::size_t take() {
    std::size_t found = 0;
    for (std::size_t place = 0; place < stages_.size(); ++place) {
      const Span& span = stages_[place]->span();
      if (span.ran_until_ns == told_ns_[place]) continue;
      told_ns_[place] = span.ran_until_ns;
      std::int64_t* const to = numbers_.data() + kNumbers * found++;
      to[0] = static_cast<std::int64_t>(place);
      to[1] = span.fed_from_ns;
      to[2] = span.fed_until_ns;
      to[3] = span.ran_from_ns;
      to[4] = span.ran_until_ns;
    }
    return found;
  }
  const std::int64_t* numbers() const { return numbers_.data(); }

 private:
  std::vector<const Stage*> stages_;
  std::vector<std::int64_t> told_ns_;  // the end of the run that was last told
  std::vector<std::int64_t> numbers_;
};

}  // namespace mmedge
