// One score: do the inputs agree?
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "decimals.hpp"
#include "interpret/classifier.hpp"
#include "interpret/smoother.hpp"

namespace mmedge {

class Verifier {
 public:
  // Without a `temperature` the output is a probability, otherwise a logit.
  Verifier(std::optional<double> temperature, const SmoothingSpec& smoothing)
      : temperature_(temperature), smoother_(smoothing, 1) {}

  // Takes up the score; what it took up before, and did not tell, is forgotten.
  Classifier::Refused read(double score) {
    score_ = score;
    if (!temperature_) return check_probabilities(&score_, 1);
    double power = score / *temperature_;
    if (power < -kEnough) power = -kEnough;
    if (power > kEnough) power = kEnough;
    score_ = 1.0 / (1.0 + std::exp(-power));
    return std::nullopt;
  }
  // What was read, smoothed; once, for the smoothing moves on. Returns 1 for yes, 0 for no, -1 to abstain,
  // and the probability of yes.
  std::pair<int, double> tell(std::int64_t t_ns) {
    const int yes = smoother_.choose(&score_, t_ns) >= 0 ? 1 : 0;
    return {smoother_.tell(yes, t_ns), round_decimals(score_, 4)};
  }
  void reset() { smoother_.reset(); }

 private:
  static constexpr double kEnough = 60.0;  // further out a logistic is 0 or 1 all the same

  std::optional<double> temperature_;
  Smoother smoother_;
  double score_ = 0.0;
};

}  // namespace mmedge
