// What a trigger brings: which seats are present, what of them is new, how old it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmedge {

// Which data of a seat is there; two that are equal are the same data.
struct Mark {
  bool there = false;
  std::int64_t epoch = 0, number = 0;
  bool operator==(const Mark& other) const {
    return there == other.there && (!there || (epoch == other.epoch && number == other.number));
  }
  bool operator!=(const Mark& other) const { return !(*this == other); }
};

struct Moment {
  static constexpr std::size_t kMaxSeats = 62;  // each is one bit of a number that may be negative

  std::int64_t t_ns = 0;
  std::uint64_t bits = 0;       // the seats that are present
  std::vector<Mark> marks;      // of each seat
  std::vector<double> ages_ms;  // of each seat; 0 where it is absent

  void raise_age(std::size_t seat, double age_ms) {
    if (ages_ms[seat] < age_ms) ages_ms[seat] = age_ms;
  }
};

}  // namespace mmedge
