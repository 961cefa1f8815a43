// What passes through the synchroniser: stamps, items, and what one input gives to one trigger.
#pragma once

#include <cstdint>
#include <vector>

#include "sync/payloads.hpp"

namespace mmedge {

constexpr std::int64_t kNsPerS = 1'000'000'000;
constexpr std::int64_t kNsPerMs = 1'000'000;
// 146 years: beyond any time. Times from outside are held within half of it, so that sums of two stay in 64
// bits.
constexpr std::int64_t kForeverNs = std::int64_t{1} << 62;
// Time stamps that run back, or ahead of the clock, by more than this have another origin: a new epoch.
constexpr std::int64_t kJumpNs = 2 * kNsPerS;

// The times that every packet carries.
struct Stamp {
  std::int64_t epoch;           // rises on reconnect; nothing is matched across epochs
  std::int64_t capture_ns;      // when the world was sensed; of sound, the instant after its last sample
  std::int64_t arrive_ns;       // when it reached this process
  std::int64_t uncertainty_ns;  // bound on the error of capture_ns
};

// A frame, text or array: its payload lies elsewhere, under the number of its slot.
struct Item {
  Slot slot = kNoSlot;
  std::int64_t capture_ns = 0;
  std::int64_t uncertainty_ns = 0;
  std::int64_t unchanged_ns = 0;  // for how long the picture has been bit-identical
  bool damaged = false;           // the picture says that its camera is alive, no more
  bool blank = false;             // a text that takes the one before back
};

// Why an input is absent, or kPresent; `Cut::why_ns` tells how much of it.
enum Why : int {
  kPresent,
  kEnded,       // nothing more is expected
  kNothingYet,  // nothing has come
  kNotInTime,   // what is wanted has not come
  kTooOld,      // why_ns: its age
  kFrozen,      // why_ns: for how long the picture has not changed
  kDamaged,
  kBehind,       // why_ns: by how much the newest sound is older than what is wanted
  kAhead,        // why_ns: by how much the oldest sound is newer
  kNoSound,      // there is no sound of that time
  kOverwritten,  // the sound was there
  kTakenBack,    // by a blank text
};

// What one input gives to one trigger.
struct Cut {
  Why why = kPresent;
  std::int64_t why_ns = 0;
  Slot slot = kNoSlot;
  std::int64_t epoch = 0;
  std::int64_t uncertainty_ns = 0;
  std::int64_t age_ns = 0;   // of its newest data at the trigger
  std::int64_t skew_ns = 0;  // between the trigger and where it was really cut
  // Of sound: index after the last sample; of the first sample of the epoch; of the oldest that can still be
  // read.
  std::int64_t end = 0, first = 0, oldest = 0;
};

// What was cut for one trigger.
struct Cuts {
  std::int64_t t_ns = 0;  // capture time of the trigger
  std::int64_t seq = 0;   // running number of the trigger
  std::int64_t deliver_ns = 0;
  std::int64_t wait_ns = 0;                // how long it waited for data of other inputs
  bool on_frame = false;                   // whether a frame made it
  std::int64_t uncertainty_ns = 0;         // of t_ns
  std::int64_t others_uncertainty_ns = 0;  // the largest of the inputs that are not its clock
  std::int64_t skew_ns = 0;
  std::vector<Cut> inputs;  // in the order in which they were added
};

}  // namespace mmedge
