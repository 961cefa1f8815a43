#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <system_error>
#include <thread>

#include "capture/datagrams.hpp"
#include "check.hpp"

using mmedge::Datagrams;
using Turn = mmedge::Datagrams::Turn;

namespace {

// A port of this machine, and who sends to it.
struct Port {
  int receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
      sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  Port() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    CHECK(bind(receiver, reinterpret_cast<sockaddr*>(&address), size) == 0);
    CHECK(getsockname(receiver, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    CHECK(connect(sender, reinterpret_cast<sockaddr*>(&address), size) == 0);
  }
  ~Port() {
    close(receiver);
    close(sender);
  }
  void send(const std::string& data) const {
    CHECK(::send(sender, data.data(), data.size(), 0) == static_cast<ssize_t>(data.size()));
  }
};

// A packet with a table of its programme: one track of this type at 0x100.
std::string map(char type) {
  std::string packet("G\x40\x01\x10\x00", 5);
  packet += std::string("\x02\xb0\x12\x00\x01\xc1\x00\x00\xe1\x00\xf0\x00", 12) + type +
            std::string("\xe1\x00\xf0\x00", 4);
  packet.resize(188, '\xff');
  return packet;
}
std::string programmes() {
  std::string packet("G\x40\x00\x10\x00\x00\xb0\x0d\x00\x01\xc1\x00\x00\x00\x01\xe0\x01", 17);
  packet.resize(188, '\xff');
  return packet;
}

void bytes_come_in_order() {
  const Port port;
  Datagrams datagrams(port.receiver);
  std::string all, out;
  for (int i = 0; i < 50; ++i) {
    port.send(std::string(static_cast<std::size_t>(i), static_cast<char>('a' + i % 26)));
    all += std::string(static_cast<std::size_t>(i), static_cast<char>('a' + i % 26));
  }
  for (std::string seen; seen != all; seen += out) {
    CHECK(datagrams.read(7, 60'000, out) == Turn::kRead && !out.empty() && out.size() <= 7);
    CHECK(all.compare(seen.size(), out.size(), out) == 0);
  }
  CHECK(datagrams.read(7, 1, out) == Turn::kSilent && out.empty() && datagrams.lost() == 0);
}

void another_programme_is_read_anew() {
  const Port port;
  Datagrams datagrams(port.receiver);
  std::string out, seen;
  const std::string first = programmes() + map('\x1b'), other = programmes() + map('\x02');
  for (const std::string& data : {first, first, other}) port.send(data);
  while (seen.size() < 2 * first.size()) {
    CHECK(datagrams.read(65'536, 60'000, out) == Turn::kRead);
    seen += out;
  }
  CHECK(seen == first + first);
  for (int i = 0; i < 2; ++i) CHECK(datagrams.read(65'536, 60'000, out) == Turn::kChanged && out.empty());
  datagrams.begin();
  CHECK(datagrams.read(65'536, 0, out) == Turn::kRead && out == other);
}

void ending_wakes_the_reader() {
  const Port port;
  Datagrams datagrams(port.receiver);
  std::thread ender([&] { datagrams.end(); });
  std::string out;
  while (datagrams.read(1, 60'000, out) != Turn::kEnded) continue;
  ender.join();
  datagrams.end();
  port.send("late");
  CHECK(datagrams.read(1, 0, out) == Turn::kEnded);
}

void no_socket_is_refused() {
  bool failed = false;
  try {
    Datagrams none(-1);
  } catch (const std::system_error&) {
    failed = true;
  }
  CHECK(failed);
}

}  // namespace

int main() {
  bytes_come_in_order();
  another_programme_is_read_anew();
  ending_wakes_the_reader();
  no_socket_is_refused();
  return 0;
}
