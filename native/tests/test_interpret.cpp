#include <cmath>
#include <limits>
#include <vector>

#include "check.hpp"
#include "interpret/classifier.hpp"
#include "interpret/detector.hpp"
#include "interpret/regressor.hpp"
#include "interpret/scores.hpp"
#include "interpret/smoother.hpp"
#include "interpret/suppress.hpp"
#include "interpret/verifier.hpp"

namespace {

using namespace mmedge;

constexpr std::int64_t kMs = 1'000'000;
const double kNan = std::numeric_limits<double>::quiet_NaN();

void probabilities_sum_to_one() {
  for (const std::size_t n : {1u, 2u, 7u, 8u, 9u, 128u, 129u, 300u}) {
    std::vector<double> scores(n);
    for (std::size_t i = 0; i < n; ++i) scores[i] = std::sin(static_cast<double>(i)) * 9.0;
    softmax(scores.data(), n, 0.7);
    double total = 0.0;
    for (const double score : scores) total += score;
    CHECK(std::fabs(total - 1.0) < 1e-12);
  }
}

void nan_is_the_best_and_the_worst() {
  const double scores[] = {0.2, 0.9, kNan, 0.9};
  CHECK(best(scores, 2) == 1 && best(scores, 4) == 2 && std::isnan(smallest(scores, 4)));
  const double tie[] = {0.5, 0.5};
  CHECK(best(tie, 2) == 0 && smallest(tie, 2) == 0.5);
}

void a_label_is_taken_up_held_and_dropped() {
  Smoother smoother({std::nullopt, 0.7, 0.4, 100.0}, 2);
  const auto at = [&](double a, double b, std::int64_t ms) {
    double scores[] = {a, b};
    return smoother.tell(smoother.choose(scores, ms * kMs), ms * kMs);
  };
  CHECK(at(0.8, 0.1, 0) == -1 && at(0.5, 0.6, 99) == -1);  // chosen, but not for long enough
  CHECK(at(0.5, 0.6, 100) == 0);
  CHECK(at(0.1, 0.6, 120) == 0 && at(0.1, 0.6, 220) == -1);  // to abstain is held back like any label
  CHECK(at(0.1, 0.7, 230) == -1 && at(0.1, 0.7, 330) == 1);
  smoother.reset();
  CHECK(at(0.5, 0.5, 900) == -1);
}

void an_average_follows_time_not_calls() {
  Ema few(200.0, 1), many(200.0, 1);
  double a = 0.0, b = 0.0;
  few.smooth(&a, 0);
  many.smooth(&b, 0);
  for (std::int64_t ms = 1; ms <= 200; ++ms) many.smooth(&(b = 1.0), ms * kMs);
  few.smooth(&(a = 1.0), 200 * kMs);
  CHECK(std::fabs(a - (1.0 - std::exp(-1.0))) < 1e-12 && std::fabs(a - b) < 1e-9);
}

void a_classifier_tells_ranks_and_refuses() {
  Classifier classifier({3, std::nullopt, 9, {std::nullopt, 0.5, 0.5, std::nullopt}});
  const float sure[] = {0.2f, 0.70004f, 0.1f}, torn[] = {0.4f, 0.3f, 0.3f}, wrong[] = {0.1f, 7.5f, -2.0f};
  CHECK(!classifier.read(sure) && classifier.tell(0) == std::pair(1, 0.7));
  CHECK(classifier.top().size() == 3 && classifier.top()[2] == std::pair(std::size_t{2}, 0.1));
  CHECK(!classifier.read(torn) && classifier.tell(0) == std::pair(-1, 0.4));
  const Classifier::Refused refused = classifier.read(wrong);
  CHECK(refused && refused->first == -2.0 && refused->second == 7.5);
  const double nothing[] = {kNan, 0.0, 0.0};
  CHECK(classifier.read(nothing));
  CHECK(refuses([] { Classifier none({0, 1.0, 0, {std::nullopt, 0, 0, std::nullopt}}); }));
}

void a_verifier_says_yes_and_no() {
  Verifier verifier(2.0, {std::nullopt, 0.5, 0.5, std::nullopt});
  CHECK(!verifier.read(1e300) && verifier.tell(0) == std::pair(1, 1.0));
  CHECK(!verifier.read(-1e300) && verifier.tell(0) == std::pair(0, 0.0));
  Verifier plain(std::nullopt, {std::nullopt, 0.5, 0.5, std::nullopt});
  CHECK(plain.read(1.5) && plain.read(kNan) && !plain.read(1.0005) && plain.tell(0) == std::pair(1, 1.0));
}

void a_number_is_clamped_and_told_to_six_digits() {
  Regressor regressor(std::nullopt, std::pair(-1.0, 2.0));
  for (const auto& [given, told] :
       {std::pair(5.0, 2.0), std::pair(-5.0, -1.0), std::pair(1.23456789, 1.23457)}) {
    regressor.read(given);
    CHECK(regressor.tell(0) == told);
  }
}

void boxes_that_overlap_a_better_one_go() {
  const Corners boxes[] = {{0, 0, 4, 4}, {0, 0, 4, 3}, {8, 8, 9, 9}, {0, 0, 4, 4}};
  const float scores[] = {0.8f, 0.9f, 0.7f, 0.0f};
  const int kinds[] = {0, 1, 0, 0};
  Suppressor suppressor;
  CHECK(suppressor.keep(boxes, scores, nullptr, 4, 0.5f, 9) == (std::vector<std::size_t>{1, 2}));
  CHECK(suppressor.keep(boxes, scores, kinds, 4, 0.5f, 9) == (std::vector<std::size_t>{1, 0, 2}));
  CHECK(suppressor.keep(boxes, scores, kinds, 4, 0.5f, 2) == (std::vector<std::size_t>{1, 0}));
  CHECK(suppressor.keep(boxes, scores, kinds, 0, 0.5f, 9).empty());
}

void a_detector_finds_the_same_in_every_layout() {
  // Two rows: x 0.25..0.5, y 0.25..0.75 of class 1; and one that is below the threshold.
  const float boxes[] = {.25f, .25f, .5f, .75f, .5f, 1, 0, 0, 1, 1, .1f, 0};
  const float yolo[] = {.375f, .5f, .5f, .5f, .25f, 1, .5f, 1, .125f, .1f, .5f, .1f};
  const float yolo_objectness[] = {.375f, .5f, .25f, .5f, .5f, .25f, 1, .5f, .5f, 1, 1, 1, .1f, .1f};
  const auto same = [](Detector::Layout layout, const float* output) {
    Detector detector({layout, 2, 10, 0.4, 0.5f});
    CHECK(!detector.read(output, 2) && detector.found() == std::vector<std::size_t>{0});
    CHECK(!detector.take(output, 2, detector.found().data(), 1));
    const auto& told = detector.tell();
    CHECK(told.size() == 1 && told[0].label == 1 && told[0].score == 0.5);
    CHECK(told[0].corners == (Corners{0.25, 0.25, 0.5, 0.75}));
  };
  same(Detector::Layout::kBoxes, boxes);
  same(Detector::Layout::kYolo, yolo);
  same(Detector::Layout::kYoloObjectness, yolo_objectness);
  Detector detector({Detector::Layout::kBoxes, 1, 10, 0.4, 0.5f});
  CHECK(!detector.read(boxes, 2));
  CHECK(detector.take(boxes, 2, detector.found().data(), 1) == std::optional(1.0));  // there is class 0 alone
  const double wrong[] = {0, 0, 1, 1, 1.5, 0};
  CHECK(detector.read(wrong, 1) && !detector.read(wrong, 0) && detector.found().empty());
}

}  // namespace

int main() {
  probabilities_sum_to_one();
  nan_is_the_best_and_the_worst();
  a_label_is_taken_up_held_and_dropped();
  an_average_follows_time_not_calls();
  a_classifier_tells_ranks_and_refuses();
  a_verifier_says_yes_and_no();
  a_number_is_clamped_and_told_to_six_digits();
  boxes_that_overlap_a_better_one_go();
  a_detector_finds_the_same_in_every_layout();
}
