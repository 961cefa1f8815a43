// Memory that two processes share: a sealed memfd, mapped once. Only its descriptor crosses.
#pragma once

#include <cstddef>

namespace mmedge {

// A whole file mapped for reading and writing, or for reading alone, and a descriptor of it. Empty (no file,
// fd -1) by default.
//
// The file never shrinks: an access beyond the end of a file that another process cut would be a SIGBUS.
class SharedMemory {
 public:
  // A new file of `bytes` zeros. Throws std::system_error.
  static SharedMemory create(std::size_t bytes);
  // Maps a file that `create` made, maybe in another process; the caller keeps its `fd`. Who only reads maps
  // it so that a write of its own is a SIGSEGV. Throws std::invalid_argument for anything but a non-empty
  // memfd sealed against shrinking, std::system_error else.
  static SharedMemory attach(int fd, bool writable = true);

  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  void* data() const { return data_; }
  std::size_t size() const { return size_; }
  int fd() const { return fd_; }

 private:
  explicit SharedMemory(int fd) : fd_(fd) {}
  void map(std::size_t bytes, bool writable);

  int fd_ = -1;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace mmedge
