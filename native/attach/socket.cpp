#include "attach/socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace mmedge::attach {
namespace {

// More than two are wrong in any case; the kernel itself closes those that find no room.
constexpr std::size_t kMostDescriptors = 4;

void require(bool fine, const std::string& what) {
  if (!fine) throw std::runtime_error(what);
}

// How many descriptors a pipeline sends beside a message of this kind; -1: no pipeline sends it.
int descriptors_of(Kind kind) {
  switch (kind) {
    case Kind::kWelcome:
    case Kind::kOpened:
      return 2;
    case Kind::kRing:
      return 1;
    case Kind::kRefused:
    case Kind::kEnded:
      return 0;
    case Kind::kHello:
    case Kind::kOpen:
      break;
  }
  return -1;
}

// Owns all descriptors that came, so that those nobody wants are closed; returns how many there were.
int adopt(msghdr& header, std::array<Descriptor, 2>& wanted) {
  int n = 0;
  for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i, ++n) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
      Descriptor owned(fd);
      if (n < 2) wanted[static_cast<std::size_t>(n)] = std::move(owned);
    }
  }
  return n;
}

void check(const Message& message, std::size_t bytes, int flags, int descriptors) {
  const char* const not_mmedge = "what came over the socket is no message of mmedge";
  require(bytes >= sizeof message.magic + sizeof message.version && message.magic == kMagic, not_mmedge);
  require(message.version == kVersion, "the pipeline speaks version " + std::to_string(message.version) +
                                           " of the protocol, this library version " +
                                           std::to_string(kVersion));
  require(bytes == sizeof message && (flags & MSG_TRUNC) == 0, not_mmedge);
  require(std::memchr(message.name, 0, kName) != nullptr && std::memchr(message.text, 0, kText) != nullptr,
          "a message of the pipeline has a string without an end");
  const int wanted = descriptors_of(message.kind);
  require(wanted >= 0, "the pipeline said something of unknown kind " +
                           std::to_string(static_cast<std::uint32_t>(message.kind)));
  require((flags & MSG_CTRUNC) == 0 && descriptors == wanted,
          "a message of the pipeline came with " + std::to_string(descriptors) +
              " descriptors that fit, not " + std::to_string(wanted));
}

// Anybody can listen in a folder like /tmp before the pipeline does. Root may attach to everybody's.
void check_owner(int line, const std::string& path) {
  ucred owner{};
  socklen_t size = sizeof owner;
  if (getsockopt(line, SOL_SOCKET, SO_PEERCRED, &owner, &size) != 0)
    throw std::system_error(errno, std::generic_category(), "nobody knows whose pipeline it is");
  const uid_t own = geteuid();
  require(own == 0 || owner.uid == 0 || owner.uid == own, "what listens at " + path + " is another user's");
}

}  // namespace

Socket Socket::connect(const std::string& path, std::chrono::seconds patience) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path || path.find('\0') != std::string::npos)
    throw std::invalid_argument("the path of a socket has 1 to " +
                                std::to_string(sizeof address.sun_path - 1) + " bytes");
  std::memcpy(address.sun_path, path.data(), path.size());
  Descriptor line(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (line.get() < 0) throw std::system_error(errno, std::generic_category(), "no socket");
  // A send to who does not read, too, waits no longer than that.
  const timeval wait{patience.count(), 0};
  setsockopt(line.get(), SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
  if (::connect(line.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw std::system_error(errno, std::generic_category(), "cannot connect to " + path);
  check_owner(line.get(), path);
  return Socket(std::move(line));
}

bool Socket::send(const Message& message) {
  ssize_t n = 0;
  do {
    n = ::send(line_.get(), &message, sizeof message, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && errno != EPIPE && errno != ECONNRESET)
    throw std::system_error(errno, std::generic_category(), "the pipeline does not listen");
  return n >= 0;
}

// A reset (the pipeline left without having heard everything) is told once and before what still waits.
Socket::Got Socket::receive(Received& received) {
  received = {};
  iovec part{&received.message, sizeof received.message};
  alignas(cmsghdr) char beside[CMSG_SPACE(sizeof(int) * kMostDescriptors)];
  msghdr header{};
  ssize_t n = 0;
  do {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = beside;
    header.msg_controllen = sizeof beside;
    n = recvmsg(line_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && (errno == EINTR || errno == ECONNRESET));
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Got::kNothing;
  if (n < 0) throw std::system_error(errno, std::generic_category(), "the line to the pipeline is broken");
  const int descriptors = adopt(header, received.descriptors);
  if (n == 0) return Got::kEnd;
  check(received.message, static_cast<std::size_t>(n), header.msg_flags, descriptors);
  return Got::kMessage;
}

bool Socket::wait(Clock::time_point until) const {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd line{line_.get(), POLLIN, 0};
    const int n = poll(&line, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000)));
    if (n > 0) return true;
    if (n == 0 && left <= 0) return false;
    if (n < 0 && errno != EINTR)
      throw std::system_error(errno, std::generic_category(), "cannot wait for the pipeline");
  }
}

}  // namespace mmedge::attach
