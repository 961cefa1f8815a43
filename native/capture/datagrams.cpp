#include "capture/datagrams.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

namespace mmedge {
namespace {

constexpr std::size_t kLargest = 65'536;  // bytes of a datagram
constexpr std::size_t kWaiting = std::size_t{8}
                                 << 20;  // bytes that may wait: two seconds at 32 Mbit/s; FFmpeg keeps 5 MB
constexpr std::size_t kMost = std::size_t{1}
                              << 16;  // datagrams that may: a stranger may send very small ones
constexpr int kBurst = 64;            // datagrams
constexpr std::uint64_t kOne = 1;

}  // namespace

Datagrams::Datagrams(int fd)
    : socket_(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)), stop_(eventfd(0, EFD_CLOEXEC)) {
  const int error = errno;
  try {
    if (socket_ < 0 || stop_ < 0)
      throw std::system_error(error, std::generic_category(), "a socket's descriptor");
    thread_ = std::thread([this] { receive(); });
  } catch (...) {
    ::close(socket_);
    ::close(stop_);
    throw;
  }
}

void Datagrams::receive() {
  std::vector<char> data(kLargest);
  pollfd ready[] = {{socket_, POLLIN, 0}, {stop_, POLLIN, 0}};
  while (true) {
    if (poll(ready, 2, -1) < 0 && errno != EINTR) return;
    // A picture comes in several datagrams: the reader is woken once for those that are there.
    for (int i = 0; i < kBurst; ++i) {
      const ssize_t n = recv(socket_, data.data(), data.size(), MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return;
      if (n < 0) break;
      keep(data.data(), static_cast<std::size_t>(n));
    }
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    if (!waiting_.empty()) change_.notify_one();
  }
}

void Datagrams::keep(const char* data, std::size_t n) {
  if (n == 0) return;  // it would read as the end of the stream
  const std::lock_guard lock(mutex_);
  if (bytes_ + n > kWaiting || waiting_.size() >= kMost) {
    ++lost_;
    return;
  }
  waiting_.emplace_back(data, n);
  bytes_ += n;
}

void Datagrams::begin() { programme_ = {}; }

Datagrams::Turn Datagrams::read(std::size_t size, int timeout_ms, std::string& out) {
  out.clear();
  std::unique_lock lock(mutex_);
  change_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return ended_ || !waiting_.empty(); });
  if (ended_) return Turn::kEnded;
  if (waiting_.empty()) return Turn::kSilent;
  while (!waiting_.empty() && out.size() < size) {
    std::string& first = waiting_.front();
    if (programme_.changed(reinterpret_cast<const std::uint8_t*>(first.data()), first.size()))
      return out.empty() ? Turn::kChanged : Turn::kRead;
    const std::size_t taken = std::min(size - out.size(), first.size());
    out.append(first, 0, taken);
    first.erase(0, taken);
    if (first.empty()) waiting_.pop_front();
    bytes_ -= taken;
  }
  return Turn::kRead;
}

void Datagrams::end() {
  const std::lock_guard ending(ending_);
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    change_.notify_all();
  }
  [[maybe_unused]] const ssize_t n = write(stop_, &kOne, sizeof kOne);
  thread_.join();
  ::close(socket_);
  ::close(stop_);
}

std::int64_t Datagrams::lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

}  // namespace mmedge
