// The life of a stage: what its outputs are, and what a trigger finds. docs/architecture.md draws how one
// state leads to another.
#pragma once

#include <cstdint>

namespace mmedge {

enum class Life : std::uint8_t {
  kCold,    // zeros; it runs at the next trigger that has its inputs, which waits for it
  kWarm,    // those of its last run
  kHidden,  // zeros while the sound of a stream is away, whose state lives on: the next step shows them again
  kRenewing,  // those of its last run, while the next one goes on in the background
  kStale,     // zeros; a background run goes on for inputs that went away since: what it gives is thrown away
  kFailed,    // zeros; a background run has failed, and is tried again there: triggers do not wait
};

// Whether it has no outputs of its own, shown or not.
inline bool is_cold(Life life) {
  return life == Life::kCold || life == Life::kStale || life == Life::kFailed;
}

// Whether it has none, and triggers do not wait for it.
inline bool is_pending(Life life) { return life == Life::kStale || life == Life::kFailed; }

// Whether its outputs are those of a run.
inline bool is_shown(Life life) { return life == Life::kWarm || life == Life::kRenewing; }

}  // namespace mmedge
