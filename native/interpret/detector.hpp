// Boxes of a detector's output: found, and in the picture rounded, freed of duplicates and told.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "interpret/suppress.hpp"

namespace mmedge {

class Detector {
 public:
  // How many values stand before the scores of the classes; `kBoxes`: corners, score, class.
  enum class Layout { kBoxes, kYolo = 4, kYoloObjectness = 5 };
  struct Spec {
    Layout layout;
    std::size_t classes, most;  // so many boxes are told
    double threshold;
    float iou;
  };
  struct Box {
    std::size_t label;
    double score;
    Corners corners;
  };
  // Suppression compares every box with every one that was kept: 2,048 cost milliseconds, 100,000 a minute.
  static constexpr std::size_t kMostCandidates = 2048;

  explicit Detector(const Spec& spec) : spec_(spec) { corners_.reserve(kMostCandidates); }

  // Of one row.
  std::size_t values() const {
    return spec_.layout == Layout::kBoxes ? 6 : static_cast<std::size_t>(spec_.layout) + spec_.classes;
  }
  // Scores rows: `yolo` [values, rows], the other layouts [rows, values]. Returns the smallest and the
  // largest score if they are no probabilities.
  template <typename T>
  std::optional<std::pair<double, double>> read(const T* output, std::size_t rows);
  // The rows above the threshold and their scores, in order; valid until the next `read`.
  const std::vector<std::size_t>& found() const { return found_; }
  const std::vector<double>& scores() const { return scores_; }
  // Takes up these rows of the same output, at most `kMostCandidates`. Returns the class of one that has
  // none.
  template <typename T>
  std::optional<double> take(const T* output, std::size_t rows, const std::size_t* picked, std::size_t n);
  // Corners of the rows that were taken up, in pixels of the network's input, for the caller to map to 0..1
  // of the picture; they stay where they are.
  std::vector<Corners>& corners() { return corners_; }
  // The boxes, best first. Valid until the next call.
  const std::vector<Box>& tell();

 private:
  Spec spec_;
  std::vector<double> scores_;
  std::vector<std::size_t> found_;
  std::vector<Corners> corners_;
  std::vector<double> chosen_;  // scores of `corners_`
  std::vector<float> marks_;
  std::vector<int> classes_;
  Suppressor suppressor_;
  std::vector<Box> told_;
};

}  // namespace mmedge
