// The one clock.
#pragma once

#include <time.h>

#include <cstdint>

namespace mmedge {

// The time in ns on CLOCK_MONOTONIC.
inline std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

}  // namespace mmedge
