// Python's threads take turns more often while one of them waits for a result, so that it gets it at once.
#pragma once

#include <nanobind/nanobind.h>

namespace mmedge::bindings {

// A wait in a program whose other threads may be busy: each holds the interpreter for 5 ms by default, here
// for 50 us. The interval is the program's: one that it has set itself stays, and after the last wait the
// default is back. Made and ended with the GIL, which guards the count of those who wait.
class PromptTurns {
 public:
  PromptTurns();
  ~PromptTurns();
  PromptTurns(const PromptTurns&) = delete;
  PromptTurns& operator=(const PromptTurns&) = delete;
};

}  // namespace mmedge::bindings
