// A process that ends with another one.
#pragma once

namespace mmedge {

// Has the kernel kill this process at once when the process behind `pidfd` ends, or has ended; `pidfd` is
// owned from now on. A thread of its own waits for that: whatever holds the interpreter, or any lock, does
// not hold it up. Unlike the parent-death signal it may watch any process, and no thread of that process has
// to live on. Throws std::system_error if no thread can be started.
void end_with(int pidfd);

}  // namespace mmedge
