// The pipeline's side of the line, for tests: says what it is told to, also what no pipeline would say.
#pragma once

#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "attach/descriptor.hpp"
#include "attach/protocol.hpp"
#include "check.hpp"
#include "include/mmedge.h"
#include "slot_ring.hpp"

namespace mmedge::attach {

// A result, and its bytes as they lie in a slot.
struct RecordParts {
  Record head{};
  std::vector<Task> tasks;
  std::vector<Picture> pictures;
  std::string json = "{}";

  RecordParts& task(const char* name, const char* label, double score, double value = 0.5) {
    Task& task = tasks.emplace_back();
    std::strcpy(task.name, name);
    if (label != nullptr) std::strcpy(task.label, label);
    task.has_label = label != nullptr;
    task.score = score;
    task.value = value;
    return *this;
  }

  // 4 x 2 gray pixels.
  RecordParts& picture(const char* input, std::uint32_t ring, std::int64_t slot, std::uint64_t seq) {
    Picture& picture = pictures.emplace_back();
    std::strcpy(picture.input, input);
    std::strcpy(picture.format, "gray8");
    std::strcpy(picture.matrix, "bt601");
    picture.ring = ring;
    picture.slot = static_cast<std::int32_t>(slot);
    picture.seq = seq;
    picture.bytes = 8;
    picture.width = 4;
    picture.height = 2;
    picture.capture_ns = 7;
    picture.rotation = 90;
    picture.mirrored = 1;
    picture.pixel_width = 2;
    picture.pixel_height = 3;
    return *this;
  }

  std::string bytes() {
    const std::size_t at = sizeof head + tasks.size() * sizeof(Task) + pictures.size() * sizeof(Picture);
    head.version = kVersion;
    head.size = static_cast<std::uint32_t>(at + json.size() + 1);
    head.tasks = static_cast<std::uint32_t>(tasks.size());
    head.frames = static_cast<std::uint32_t>(pictures.size());
    head.json_at = static_cast<std::uint32_t>(at);
    head.json_size = json.size();
    std::string all(reinterpret_cast<const char*>(&head), sizeof head);
    all.append(reinterpret_cast<const char*>(tasks.data()), tasks.size() * sizeof(Task));
    all.append(reinterpret_cast<const char*>(pictures.data()), pictures.size() * sizeof(Picture));
    return all + json + '\0';
  }
};

inline Message message(Kind kind, std::uint32_t number = 0, const std::string& name = "",
                       const std::string& text = "") {
  Message message;
  message.kind = kind;
  message.number = number;
  name.copy(message.name, kName);
  text.copy(message.text, kText);
  return message;
}

inline int open_descriptors() {
  DIR* const folder = opendir("/proc/self/fd");
  CHECK(folder != nullptr);
  int n = 0;
  while (readdir(folder) != nullptr) ++n;
  closedir(folder);
  return n;
}

// Listens in a folder of its own, and has at most one program attached.
class TestPipeline {
 public:
  explicit TestPipeline(int type = SOCK_SEQPACKET)
      : results(64, 4096), wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    CHECK(mkdtemp(folder_) != nullptr);
    path = std::string(folder_) + "/socket";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    listener_ = Descriptor(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    CHECK(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
          listen(listener_.get(), 4) == 0);
  }
  ~TestPipeline() {
    unlink(path.c_str());
    rmdir(folder_);
  }

  void accept() {
    line_ = Descriptor(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    CHECK(line_.get() >= 0);
  }

  Message hear() {
    Message heard;
    CHECK(recv(line_.get(), &heard, sizeof heard, 0) == sizeof heard);
    CHECK(heard.magic == kMagic && heard.version == kVersion);
    return heard;
  }

  void say(const Message& said, const std::vector<int>& fds = {}, std::size_t bytes = sizeof(Message)) {
    std::string longer(reinterpret_cast<const char*>(&said), sizeof said);
    longer.resize(bytes);
    iovec part{longer.data(), bytes};
    std::vector<char> beside(CMSG_SPACE(sizeof(int) * fds.size()));
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
      header.msg_control = beside.data();
      header.msg_controllen = beside.size();
      cmsghdr* const at = CMSG_FIRSTHDR(&header);
      at->cmsg_level = SOL_SOCKET;
      at->cmsg_type = SCM_RIGHTS;
      at->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      std::memcpy(CMSG_DATA(at), fds.data(), sizeof(int) * fds.size());
    }
    CHECK(sendmsg(line_.get(), &header, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes));
  }

  void leave() { line_ = Descriptor(); }

  // Lets `program` do what it does while this side does `answer`.
  template <typename Answer, typename Program>
  auto beside(Answer answer, Program program) {
    std::thread side(answer);
    auto got = program();
    side.join();
    return got;
  }

  // A program that is attached.
  mmedge_client* attached() {
    const auto greet = [this] {
      accept();
      CHECK(hear().kind == Kind::kHello);
      say(message(Kind::kWelcome), {results.fd(), wake.get()});
    };
    return beside(greet, [this] {
      mmedge_client* client = nullptr;
      CHECK(mmedge_attach(path.c_str(), &client) == MMEDGE_OK);
      return client;
    });
  }

  void publish(const std::string& record, const std::string& header) {
    const std::int64_t slot = results.acquire(true);
    CHECK(slot >= 0 && record.size() <= 4096);
    std::memcpy(results.data(slot), record.data(), record.size());
    results.publish(slot, header.data(), header.size());
    CHECK(eventfd_write(wake.get(), 1) == 0);
  }
  void publish(const std::string& record) {
    const auto size = static_cast<std::uint32_t>(record.size());
    publish(record, std::string(reinterpret_cast<const char*>(&size), sizeof size));
  }

  std::string path;
  SlotRing results;
  Descriptor wake;

 private:
  char folder_[32] = "/tmp/mmedge-attach-XXXXXX";
  Descriptor listener_;
  Descriptor line_;
};

}  // namespace mmedge::attach
