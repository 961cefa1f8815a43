// What an interpreter tells of one task, and how a result says it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "interpret/detector.hpp"
#include "results/packer.hpp"

namespace mmedge {

// Its views are valid until the interpreter's next call. All empty: undefined.
struct TaskTold {
  const std::vector<std::string>* labels = nullptr;  // what indices stand for
  int label = -1;                                    // -1: none
  std::optional<double> score = std::nullopt;
  const std::vector<std::pair<std::size_t, double>>* top = nullptr;
  const std::vector<Detector::Box>* boxes = nullptr;
  std::optional<double> value = std::nullopt;
  std::string_view unit = {};
};

// Writes a ``TaskResult`` (mmedge/types.py).
void pack(const TaskTold& told, Packer* to);

}  // namespace mmedge
