#include "interpret/detector.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "decimals.hpp"

namespace mmedge {
namespace {

constexpr double kSlack = 1e-3;  // half precision may leave a probability above 1
constexpr double kSteps = 1e5;   // corners are told to five digits

// Rounded before they are compared, so that the reported boxes keep the promise about overlaps.
double in_picture(double share) {
  if (share < 0.0) share = 0.0;
  if (share > 1.0) share = 1.0;
  return std::nearbyint(share * kSteps) / kSteps;
}

// The largest of each column of [classes, rows].
template <typename T>
void largest(const T* scores, std::size_t classes, std::size_t rows, std::vector<double>& out, bool& nan) {
  constexpr std::size_t kBlock = 4096;  // long enough to be read ahead, short enough to stay in the cache
  T best[kBlock];
  for (std::size_t start = 0; start < rows; start += kBlock) {
    const std::size_t n = std::min(kBlock, rows - start);
    std::fill(best, best + n, -std::numeric_limits<T>::infinity());
    for (std::size_t c = 0; c < classes; ++c) {
      const T* row = scores + c * rows + start;
      unsigned wrong = 0;
      for (std::size_t i = 0; i < n; ++i) {
        best[i] = row[i] > best[i] ? row[i] : best[i];
        wrong |= row[i] != row[i];
      }
      nan = nan || wrong != 0;
    }
    for (std::size_t i = 0; i < n; ++i) out[start + i] = static_cast<double>(best[i]);
  }
}

}  // namespace

template <typename T>
std::optional<std::pair<double, double>> Detector::read(const T* output, std::size_t rows) {
  scores_.resize(rows);
  found_.clear();
  bool nan = false;
  if (spec_.layout == Layout::kYolo) {
    largest(output + 4 * rows, spec_.classes, rows, scores_, nan);
  } else {
    const bool boxes = spec_.layout == Layout::kBoxes;
    for (std::size_t i = 0; i < rows; ++i) {
      const T* row = output + i * values();
      double score = static_cast<double>(row[4]);
      if (!boxes) {
        T best = row[5];
        for (std::size_t c = 0; c < spec_.classes; ++c) {
          best = row[5 + c] > best ? row[5 + c] : best;
          nan = nan || row[5 + c] != row[5 + c];
        }
        score = static_cast<double>(best) * score;
      }
      scores_[i] = score;
    }
  }
  // What is below 0 is below any threshold; what is above 1 was never a score.
  double low = std::numeric_limits<double>::infinity(), high = 0.0;
  for (std::size_t i = 0; i < rows; ++i) {
    const double score = scores_[i];
    nan = nan || std::isnan(score);
    low = std::min(low, std::max(score, 0.0));
    high = std::max(high, score);
    if (score >= spec_.threshold && score > 0.0) found_.push_back(i);
  }
  if (nan) low = high = std::numeric_limits<double>::quiet_NaN();
  if (rows > 0 && !(high <= 1.0 + kSlack)) return std::pair(low, high);
  return std::nullopt;
}

template <typename T>
std::optional<double> Detector::take(const T* output, std::size_t rows, const std::size_t* picked,
                                     std::size_t n) {
  corners_.clear();
  chosen_.clear();
  classes_.clear();
  const bool across = spec_.layout == Layout::kYolo;
  for (std::size_t k = 0; k < std::min(n, kMostCandidates); ++k) {
    const std::size_t i = picked[k];
    const auto value = [&](std::size_t v) { return output[across ? v * rows + i : i * values() + v]; };
    const double a = static_cast<double>(value(0)), b = static_cast<double>(value(1));
    const double c = static_cast<double>(value(2)), d = static_cast<double>(value(3));
    std::size_t label = 0;
    if (spec_.layout == Layout::kBoxes) {
      const double number = static_cast<double>(value(5));
      if (!(number >= 0.0 && number < static_cast<double>(spec_.classes) && number == std::floor(number)))
        return number;
      label = static_cast<std::size_t>(number);
      corners_.push_back({a, b, c, d});
    } else {
      const auto first = static_cast<std::size_t>(spec_.layout);
      for (std::size_t other = 1; other < spec_.classes; ++other)
        if (value(first + other) > value(first + label)) label = other;
      const double wide = c / 2.0, high = d / 2.0;
      corners_.push_back({a - wide, b - high, a + wide, b + high});
    }
    classes_.push_back(static_cast<int>(label));
    chosen_.push_back(std::min(scores_[i], 1.0));
  }
  return std::nullopt;
}

const std::vector<Detector::Box>& Detector::tell() {
  std::size_t solid = 0;
  marks_.clear();
  for (std::size_t i = 0; i < corners_.size(); ++i) {
    Corners corners = corners_[i];
    for (double& share : corners) share = in_picture(share);
    if (!(corners[2] > corners[0] && corners[3] > corners[1])) continue;
    corners_[solid] = corners;
    chosen_[solid] = chosen_[i];
    classes_[solid++] = classes_[i];
    marks_.push_back(static_cast<float>(chosen_[i]));
  }
  told_.clear();
  const auto& kept =
      suppressor_.keep(corners_.data(), marks_.data(), classes_.data(), solid, spec_.iou, spec_.most);
  for (const std::size_t i : kept)
    told_.push_back({static_cast<std::size_t>(classes_[i]), round_decimals(chosen_[i], 4), corners_[i]});
  return told_;
}

template std::optional<std::pair<double, double>> Detector::read(const float*, std::size_t);
template std::optional<std::pair<double, double>> Detector::read(const double*, std::size_t);
template std::optional<double> Detector::take(const float*, std::size_t, const std::size_t*, std::size_t);
template std::optional<double> Detector::take(const double*, std::size_t, const std::size_t*, std::size_t);

}  // namespace mmedge
