#include "interpret/classifier.hpp"

#include <algorithm>
#include <stdexcept>

#include "decimals.hpp"
#include "interpret/scores.hpp"

namespace mmedge {
namespace {

constexpr double kSlack = 1e-3;
constexpr int kDigits = 4;

}  // namespace

Classifier::Classifier(const Spec& spec)
    : temperature_(spec.temperature), smoother_(spec.smoothing, spec.labels), scores_(spec.labels) {
  if (spec.labels < 1) throw std::invalid_argument("a classification needs at least one label");
  ranking_.resize(spec.top > 0 ? spec.labels : 0);
  top_.resize(std::min(spec.top, spec.labels));
}

Classifier::Refused Classifier::take_up() {
  if (!temperature_) return check_probabilities(scores_.data(), scores_.size());
  softmax(scores_.data(), scores_.size(), *temperature_);
  return std::nullopt;
}

std::pair<int, double> Classifier::tell(std::int64_t t_ns) {
  const int told = smoother_.tell(smoother_.choose(scores_.data(), t_ns), t_ns);
  const std::size_t shown = told < 0 ? best(scores_.data(), scores_.size()) : static_cast<std::size_t>(told);
  return {told, round_decimals(scores_[shown], kDigits)};
}

const std::vector<std::pair<std::size_t, double>>& Classifier::top() {
  if (!top_.empty()) std::copy(scores_.begin(), scores_.end(), ranking_.begin());
  for (auto& ranked : top_) {
    const std::size_t found = best(ranking_.data(), ranking_.size());
    ranked = {found, round_decimals(scores_[found], kDigits)};
    ranking_[found] = -1.0;  // below every probability
  }
  return top_;
}

Classifier::Refused check_probabilities(double* scores, std::size_t n) {
  const double low = smallest(scores, n), high = scores[best(scores, n)];
  if (!(low >= -kSlack && high <= 1.0 + kSlack)) return std::pair(low, high);
  clip(scores, n);
  return std::nullopt;
}

}  // namespace mmedge
