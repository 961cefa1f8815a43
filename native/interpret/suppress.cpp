#include "interpret/suppress.hpp"

#include <algorithm>
#include <limits>

namespace mmedge {

const std::vector<std::size_t>& Suppressor::keep(const Corners* corners, const float* scores,
                                                 const int* classes, std::size_t n, float iou,
                                                 std::size_t most) {
  rects_.clear();
  order_.clear();
  kept_.clear();
  double far = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto& [x1, y1, x2, y2] = corners[i];
    rects_.push_back({x1, y1, x2 - x1, y2 - y1});
    const Rect& rect = rects_.back();
    for (const double edge : {rect.x, rect.y, rect.x + rect.width, rect.y + rect.height})
      far = std::max(edge, far);
    if (scores[i] > 0.0f) order_.push_back(i);
  }
  if (classes != nullptr) {  // each class lies somewhere else, so that its boxes meet no others
    for (std::size_t i = 0; i < n; ++i) {
      const double offset = classes[i] * (far + 1.0);
      rects_[i].x += offset;
      rects_[i].y += offset;
    }
  }
  std::sort(order_.begin(), order_.end(), [scores](std::size_t a, std::size_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  for (const std::size_t i : order_) {
    if (kept_.size() == most) break;
    const auto stays = [&](std::size_t other) { return overlap(rects_[i], rects_[other]) <= iou; };
    if (std::all_of(kept_.begin(), kept_.end(), stays)) kept_.push_back(i);
  }
  return kept_;
}

double Suppressor::shared(const Rect& a, const Rect& b) {
  const auto empty = [](const Rect& rect) { return rect.width <= 0.0 || rect.height <= 0.0; };
  if (empty(a) || empty(b)) return 0.0;
  const Rect &left = a.x < b.x ? a : b, &right = a.x < b.x ? b : a;
  const Rect &upper = a.y < b.y ? a : b, &lower = a.y < b.y ? b : a;
  const double width = std::min(left.width - (right.x - left.x), right.width);
  const double height = std::min(upper.height - (lower.y - upper.y), lower.height);
  return width <= 0.0 || height <= 0.0 ? 0.0 : width * height;
}

float Suppressor::overlap(const Rect& a, const Rect& b) {
  const double areas = a.width * a.height + b.width * b.height;
  if (areas <= std::numeric_limits<double>::epsilon()) return 1.0f;
  const double both = shared(a, b);
  return 1.0f - static_cast<float>(1.0 - both / (areas - both));
}

}  // namespace mmedge
