// Boxes that overlap: which of them stay (non-maximum suppression).
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace mmedge {

using Corners = std::array<double, 4>;  // x1, y1, x2, y2

// Never allocates once it has seen the largest number of boxes. Arithmetic and order are those of OpenCV's
// NMSBoxes and NMSBoxesBatched, so that the same boxes stay, to the last one.
class Suppressor {
 public:
  // Returns the boxes [n] that overlap no better one (of the same class) by more than `iou`, best first;
  // those of a score of 0 or less are left out. Without `classes` all boxes are of one. Valid until the next
  // call.
  const std::vector<std::size_t>& keep(const Corners* corners, const float* scores, const int* classes,
                                       std::size_t n, float iou, std::size_t most);

 private:
  struct Rect {
    double x, y, width, height;
  };
  static double shared(const Rect& a, const Rect& b);
  static float overlap(const Rect& a, const Rect& b);

  std::vector<Rect> rects_;
  std::vector<std::size_t> order_, kept_;
};

}  // namespace mmedge
