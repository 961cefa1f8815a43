// Scores of labels: calibrated, smoothed, decided or abstained.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "interpret/smoother.hpp"

namespace mmedge {

// Never allocates after it was made.
class Classifier {
 public:
  struct Spec {
    std::size_t labels;
    std::optional<double> temperature;  // of logits; none: the output is probabilities
    std::size_t top;                    // how many labels are ranked
    SmoothingSpec smoothing;
  };
  // The smallest and the largest of scores that are no probabilities.
  using Refused = std::optional<std::pair<double, double>>;

  explicit Classifier(const Spec& spec);

  std::size_t labels() const { return scores_.size(); }
  // Takes up an output [labels]; what it took up before, and did not tell, is forgotten.
  template <typename T>
  Refused read(const T* output) {
    for (std::size_t i = 0; i < scores_.size(); ++i) scores_[i] = static_cast<double>(output[i]);
    return take_up();
  }
  // What was read, smoothed; once, for the smoothing moves on. Returns the index of the label, -1 to abstain,
  // and its score, or else the best one.
  std::pair<int, double> tell(std::int64_t t_ns);
  // Ranks what was told: the best labels and their scores. Valid until the next call.
  const std::vector<std::pair<std::size_t, double>>& top();
  void reset() { smoother_.reset(); }

 private:
  Refused take_up();

  std::optional<double> temperature_;
  Smoother smoother_;
  std::vector<double> scores_, ranking_;
  std::vector<std::pair<std::size_t, double>> top_;
};

// Scores that are no probabilities, but for what half precision leaves of a softmax; the others are clipped.
Classifier::Refused check_probabilities(double* scores, std::size_t n);

}  // namespace mmedge
