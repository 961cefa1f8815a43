// Stages whose engines copy a number, and what is called for them: for the tests of the graph.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "graph/runner.hpp"

namespace mmedge::tests {

constexpr std::int64_t kMs = 1'000'000;

inline Moment moment(std::int64_t t_ns, const std::vector<std::int64_t>& numbers) {
  Moment made(numbers.size());
  made.t_ns = t_ns;
  for (std::size_t seat = 0; seat < numbers.size(); ++seat) {
    const bool there = numbers[seat] >= 0;
    made.marks[seat] = {there, 0, numbers[seat]};
    if (there) made.bits |= std::uint64_t{1} << seat;
  }
  return made;
}

// What was called, and for which stage; a call of this kind throws.
struct Calls {
  std::string calls, throws;
  void say(char what, char stage) {
    const std::string call{what, stage};
    calls += call;
    if (call == throws) throw std::runtime_error("it fails");
  }
};

// Copies one number to another one.
struct Hands : StageHands {
  Hands(Calls* told, char number, const float* from, float factor, float* to)
      : told_(told), number_(number), from_(from), factor_(factor), to_(to) {}
  void fill(const Moment&) override { told_->say('s', number_); }
  void hear(const Moment&, std::int64_t end) override {
    told_->say('h', number_);
    heard.push_back(end);
  }
  bool differs(const Moment&) override {
    told_->say('d', number_);
    return false;
  }
  void fed(const Moment&) override { told_->say('f', number_); }
  void run() override {
    *to_ = factor_ * *from_;
    told_->say('r', number_);
  }
  void infinite() override {
    told_->say('i', number_);
    throw std::runtime_error("it is not finite");
  }

  std::vector<std::int64_t> heard;

 private:
  Calls* told_;
  char number_;
  const float* from_;
  float factor_;
  float* to_;
};

inline Stage::Rules rules_of(std::uint64_t depends, std::vector<std::size_t> watches,
                             std::optional<std::int64_t> every_ns = std::nullopt) {
  return {depends, depends, std::move(watches), true, every_ns};
}

}  // namespace mmedge::tests
