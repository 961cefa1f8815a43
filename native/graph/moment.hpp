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

// Of a seat's sound, by the numbers of its samples: where it is cut, where its epoch begins, and the oldest
// that can still be read.
struct Sound {
  std::int64_t end = 0, begin = 0, oldest = 0;
};

struct Moment {
  static constexpr std::size_t kMaxSeats = 62;  // each is one bit of a number that may be negative

  std::int64_t t_ns = 0;
  std::uint64_t bits = 0;       // the seats that are present
  std::vector<Mark> marks;      // of each seat
  std::vector<double> ages_ms;  // of each seat; 0 where it is absent
  std::vector<Sound> sounds;    // of each seat that is present and hears
  std::uint64_t values = 0;     // the seats that are given a value, and no picture or sound
  std::uint64_t dated = 0;      // the seats whose epoch is known
  std::vector<std::int64_t> epochs;

  explicit Moment(std::size_t seats = 0) : marks(seats), ages_ms(seats), sounds(seats), epochs(seats) {}

  void raise_age(std::size_t seat, double age_ms) {
    if (ages_ms[seat] < age_ms) ages_ms[seat] = age_ms;
  }
};

}  // namespace mmedge
