// UDP as a stream of bytes, received by a thread of its own.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "capture/programme.hpp"

namespace mmedge {

// What finds no room is left out. One thread reads; any may end it.
class Datagrams {
 public:
  enum class Turn { kRead, kSilent, kEnded, kChanged };

  // Receives from a socket; the caller keeps `fd`. Throws std::system_error when the system has no more
  // descriptors or threads.
  explicit Datagrams(int fd);
  ~Datagrams() { end(); }
  Datagrams(const Datagrams&) = delete;
  Datagrams& operator=(const Datagrams&) = delete;

  // Reads what comes next as a stream of its own.
  void begin();
  // Waits for bytes and moves those that are there, `size` >= 1 at most, to `out`. What belongs to another
  // programme is not read before `begin`.
  Turn read(std::size_t size, int timeout_ms, std::string& out);
  // Gives the port back, as far as it is ours, and wakes who reads.
  void end();
  // Datagrams that found no room.
  std::int64_t lost() const;

 private:
  void receive();
  void keep(const char* data, std::size_t n);

  int socket_, stop_;
  mutable std::mutex mutex_;
  std::condition_variable change_;
  std::deque<std::string> waiting_;
  std::size_t bytes_ = 0;  // that wait
  std::int64_t lost_ = 0;
  bool ended_ = false;
  Programme programme_;  // the reader's
  std::mutex ending_;    // who ends it first
  std::thread thread_;
};

}  // namespace mmedge
