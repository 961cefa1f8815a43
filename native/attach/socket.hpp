// The line of a program to the pipeline: messages with descriptors beside them.
#pragma once

#include <array>
#include <chrono>
#include <string>

#include "attach/descriptor.hpp"
#include "attach/protocol.hpp"

namespace mmedge::attach {

// Says what a program says and hears what a pipeline says. What comes is checked: it is one whole message of
// this version, of a kind that a pipeline says, with the descriptors of its kind and NULs at the ends of its
// strings. Throws std::runtime_error where it is not, std::system_error where the system fails.
class Socket {
 public:
  using Clock = std::chrono::steady_clock;

  struct Received {
    Message message;
    std::array<Descriptor, 2> descriptors;
  };
  enum class Got { kMessage, kNothing, kEnd };

  // Connects to the socket at `path`, and waits for a busy one that long. Throws std::invalid_argument for
  // what cannot be a path, std::system_error where nobody listens.
  static Socket connect(const std::string& path, std::chrono::seconds patience);

  explicit Socket(Descriptor line) : line_(std::move(line)) {}

  // False where the pipeline has left.
  bool send(const Message& message);
  // Never waits. What it has said is heard also when it has left since.
  Got receive(Received& received);
  // Waits until there is something to receive; false where nothing came in time.
  bool wait(Clock::time_point until) const;
  int fd() const { return line_.get(); }

 private:
  Descriptor line_;
};

}  // namespace mmedge::attach
