#include "results/task_told.hpp"

namespace mmedge {
namespace {

constexpr std::string_view kCorners[] = {"x1", "y1", "x2", "y2"};

void pack(const Detector::Box& box, const std::vector<std::string>& labels, Packer* to) {
  to->map(6);
  to->string("label");
  to->string(labels.at(box.label));
  to->string("score");
  to->real(box.score);
  for (std::size_t k = 0; k < box.corners.size(); ++k) {
    to->string(kCorners[k]);
    to->real(box.corners[k]);
  }
}

}  // namespace

void pack(const TaskTold& told, Packer* to) {
  to->map(2 + (told.top != nullptr) + (told.boxes != nullptr) +
          2 * static_cast<std::size_t>(told.value.has_value()));
  to->string("label");
  told.label < 0 ? to->nil() : to->string(told.labels->at(static_cast<std::size_t>(told.label)));
  to->string("score");
  told.score ? to->real(*told.score) : to->nil();
  if (told.top != nullptr) {
    to->string("top");
    to->array(told.top->size());
    for (const auto& [index, share] : *told.top) {
      to->array(2);
      to->string(told.labels->at(index));
      to->real(share);
    }
  }
  if (told.boxes != nullptr) {
    to->string("boxes");
    to->array(told.boxes->size());
    for (const Detector::Box& box : *told.boxes) pack(box, *told.labels, to);
  }
  if (told.value) {
    to->string("value");
    to->real(*told.value);
    to->string("unit");
    to->string(told.unit);
  }
}

}  // namespace mmedge
