// The arrays of a stage: what is copied into its engine's and out of them, what is zeroed, what must be
// finite.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/moment.hpp"

namespace mmedge {

// An array that is copied to another one of the same size.
struct Link {
  const void* from;
  void* to;
  std::size_t bytes;
};

struct Block {
  void* data;
  std::size_t bytes;
};

// A row of one number a seat: 1 where it is present, or its age in ms.
struct SeatRow {
  float* values;
  bool presence;
};

// Numbers of 2, 4 or 8 bytes.
struct Numbers {
  const void* values;
  std::size_t n, bytes;
};

// They stay where they are. Whoever has arrays that are of other types than those they are copied to, derives
// a class of its own.
class Tensors {
 public:
  virtual ~Tensors() = default;

  // Copies what other stages gave, and which of the seats are present to the stage, as bits, or how old they
  // are.
  virtual void feed(const Moment& moment, std::uint64_t bits);
  // Tells whether another stage gives something else than what was fed.
  virtual bool differ() const;
  // Feeds the states back.
  virtual void carry();
  // Zeroes the states.
  virtual void forget();
  // Zeroes the states, and writes the constants anew.
  virtual void wipe();
  // Copies the engine's outputs to where others read them.
  virtual void publish();
  // Zeroes what others read.
  virtual void clear();

  bool finite() const;

  std::vector<Link> links;       // outputs of other stages to the engine's inputs
  std::vector<SeatRow> rows;     // of the engine's inputs
  std::vector<Link> states;      // outputs to inputs
  std::vector<Link> constants;   // to inputs
  std::vector<Link> copies;      // outputs to where others read them, unless they read the engine's
  std::vector<Block> shown;      // what others read
  std::vector<Numbers> outputs;  // that must be finite
  bool stateful = false;         // whether there are states, of whatever type
};

}  // namespace mmedge
