// What no pipeline says: it is refused with words, nothing leaks, and the program can leave.
#include <fcntl.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "attach_pipeline.hpp"

namespace {

using mmedge::SlotRing;
using mmedge::attach::Descriptor;
using mmedge::attach::Kind;
using mmedge::attach::Message;
using mmedge::attach::message;
using mmedge::attach::open_descriptors;
using mmedge::attach::Picture;
using mmedge::attach::Record;
using mmedge::attach::RecordParts;
using mmedge::attach::Task;
using mmedge::attach::TestPipeline;

bool says(const mmedge_client* client, const char* words) {
  return std::strstr(mmedge_error(client), words) != nullptr;
}

bool fails(mmedge_client* client, const char* words) {
  mmedge_result* result = nullptr;
  return mmedge_next(client, 1000, &result) == MMEDGE_FAILED && result == nullptr && says(client, words);
}

template <typename T>
std::string with(std::string bytes, std::size_t at, T value) {
  std::memcpy(&bytes[at], &value, sizeof value);
  return bytes;
}

void records() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  const std::string good = RecordParts{}.task("t", "l", 1).picture("camera", 1, 0, 1).bytes();
  const auto size = static_cast<std::uint32_t>(good.size());
  const std::uint32_t most = ~std::uint32_t{0};
  std::vector<std::string> bad{
      good.substr(0, sizeof(Record) - 1),
      with<std::uint32_t>(good, offsetof(Record, version), 2),
      with<std::uint32_t>(good, offsetof(Record, size), size - 1),
      with<std::uint32_t>(good, offsetof(Record, size), most),
      with<std::uint32_t>(good, offsetof(Record, json_at), 0),
      with<std::uint32_t>(good, offsetof(Record, json_at), size - 4),  // into a picture
      with<std::uint32_t>(good, offsetof(Record, json_at), size),
      with<std::uint32_t>(good, offsetof(Record, json_at), most),
      with<std::uint64_t>(good, offsetof(Record, json_size), 1),  // no NUL there
      with<std::uint64_t>(good, offsetof(Record, json_size), 3),
      with<std::uint64_t>(good, offsetof(Record, json_size), ~std::uint64_t{0}),
      with<std::uint64_t>(good, offsetof(Record, json_size), ~std::uint64_t{0} - size + 2),
  };
  for (const std::uint32_t n : {std::uint32_t{2}, std::uint32_t{1} << 30, most}) {
    bad.push_back(with<std::uint32_t>(good, offsetof(Record, tasks), n));
    bad.push_back(with<std::uint32_t>(good, offsetof(Record, frames), n));
  }
  const std::size_t task = sizeof(Record), picture = task + sizeof(Task);
  const std::size_t strings[][2] = {{task + offsetof(Task, name), 64},
                                    {task + offsetof(Task, label), 128},
                                    {picture + offsetof(Picture, input), 64},
                                    {picture + offsetof(Picture, format), 16},
                                    {picture + offsetof(Picture, matrix), 16}};
  for (const auto& [at, room] : strings) bad.push_back(std::string(good).replace(at, room, room, 'x'));
  for (const std::string& record : bad) {
    pipeline.publish(record);
    CHECK(fails(client, "result") && pipeline.results.free() == 64);
  }
  pipeline.publish(good, "");
  CHECK(fails(client, "too short"));
  pipeline.publish(good, "12345");
  CHECK(fails(client, "too short"));
  pipeline.publish(good, std::string("\xff\xff\xff\xff", 4));
  CHECK(fails(client, "longer than its slot"));
  pipeline.publish(good);
  mmedge_result* result = nullptr;
  CHECK(mmedge_next(client, 1000, &result) == MMEDGE_OK);
  mmedge_detach(client);
}

void pictures() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  SlotRing ring(2, 8);
  ring.hold(ring.acquire(false));
  pipeline.say(message(Kind::kRing, 1, "camera"), {ring.fd()});
  const std::string good = RecordParts{}.picture("camera", 1, 0, 1).bytes();
  const auto at = [](std::size_t member) { return sizeof(Record) + member; };
  const auto taller = [&](std::uint32_t height) {
    return with(with<std::uint32_t>(good, at(offsetof(Picture, height)), height),
                at(offsetof(Picture, bytes)), std::uint64_t{4} * height);
  };
  const std::vector<std::string> bad{
      with<std::int32_t>(good, at(offsetof(Picture, slot)), 2),
      with<std::int32_t>(good, at(offsetof(Picture, slot)), -1),
      with<std::uint64_t>(good, at(offsetof(Picture, bytes)), 9),
      with<std::uint64_t>(good, at(offsetof(Picture, bytes)), 0),
      with<std::uint32_t>(good, at(offsetof(Picture, width)), 0),
      with<std::uint32_t>(good, at(offsetof(Picture, height)), ~std::uint32_t{0}),
      with<std::uint32_t>(good, at(offsetof(Picture, height)), 3),
      taller(3),  // than its slot
      std::string(good).replace(at(offsetof(Picture, format)), 6, "rgb24", 6),
      std::string(good).replace(at(offsetof(Picture, format)), 6, "nv12\0", 6),
  };
  mmedge_frame frame{};
  for (const std::string& record : bad) {
    pipeline.publish(record);
    mmedge_result* result = nullptr;
    CHECK(mmedge_next(client, 1000, &result) == MMEDGE_OK);
    CHECK(mmedge_result_frame(result, "camera", &frame) == MMEDGE_FAILED && says(client, "picture"));
    mmedge_release(client, result);
  }
  for (const std::uint64_t seq : {std::uint64_t{0}, std::uint64_t{2}, ~std::uint64_t{0}}) {
    pipeline.publish(with(good, at(offsetof(Picture, seq)), seq));
    mmedge_result* result = nullptr;
    CHECK(mmedge_next(client, 1000, &result) == MMEDGE_OK);
    CHECK(mmedge_result_frame(result, "camera", &frame) == MMEDGE_GONE);
  }
  mmedge_detach(client);
}

// Each ends the line: what was published before is given, then the words, as often as one asks.
void messages() {
  const int before = open_descriptors();
  struct Bad {
    Message said;
    std::vector<int> fds;
    std::size_t bytes;
    const char* words;
  };
  const SlotRing ring(1, 8);
  const Descriptor file(open("/dev/null", O_RDWR | O_CLOEXEC));
  const Descriptor loose(memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  CHECK(ftruncate(loose.get(), 4096) == 0);
  const int fd = ring.fd();
  const std::size_t size = sizeof(Message);
  Message magic = message(Kind::kEnded), version = magic, name = magic, text = magic;
  magic.magic = 1;
  version.version = 2;
  std::memset(name.name, 'x', sizeof name.name);
  std::memset(text.text, 'x', sizeof text.text);
  const std::vector<Bad> all{
      {magic, {}, size, "no message of mmedge"},
      {version, {}, size, "version 2 of the protocol, this library version 1"},
      {version, {}, 8, "version 2"},
      {name, {}, size, "without an end"},
      {text, {}, size, "without an end"},
      {message(Kind::kEnded), {}, size - 1, "no message of mmedge"},
      {message(Kind::kEnded), {}, size + 1, "no message of mmedge"},
      {message(Kind::kEnded), {}, 7, "no message of mmedge"},
      {message(Kind::kHello), {}, size, "unknown kind 1"},
      {message(Kind::kOpen), {}, size, "unknown kind 2"},
      {message(static_cast<Kind>(0)), {}, size, "unknown kind 0"},
      {message(static_cast<Kind>(77)), {fd, fd}, size, "unknown kind 77"},
      {message(Kind::kEnded), {fd}, size, "descriptors"},
      {message(Kind::kWelcome), {fd, fd}, size, "greeted twice"},
      {message(Kind::kRing, 1), {}, size, "descriptors"},
      {message(Kind::kRing, 1), {fd, fd}, size, "descriptors"},
      {message(Kind::kRing, 1), {fd, fd, fd}, size, "descriptors"},
      {message(Kind::kRing, 1), std::vector<int>(100, fd), size, "descriptors"},
      {message(Kind::kRing, 0), {fd}, size, "without a number"},
      {message(Kind::kRing, 1), {file.get()}, size, "no ring"},
      {message(Kind::kRing, 1), {loose.get()}, size, "no ring"},
      {message(Kind::kOpened, 1), {fd}, size, "descriptors"},
      {message(Kind::kRefused, 1), {fd}, size, "descriptors"},
  };
  for (const Bad& bad : all) {
    TestPipeline pipeline;
    mmedge_client* const client = pipeline.attached();
    pipeline.publish(RecordParts{}.bytes());
    pipeline.say(bad.said, bad.fds, bad.bytes);
    mmedge_result* result = nullptr;
    CHECK(mmedge_next(client, 1000, &result) == MMEDGE_OK);
    for (int i = 0; i < 2; ++i) CHECK(fails(client, bad.words));
    CHECK(mmedge_push_text(client, "text", "", 1) == MMEDGE_FAILED && says(client, bad.words));
    mmedge_detach(client);
  }
  CHECK(open_descriptors() == before + 3);
}

void opened() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  const SlotRing small(1, 8);
  const auto answer = [&] {
    pipeline.hear();
    pipeline.say(message(Kind::kOpened, 1, "other"), {small.fd(), pipeline.wake.get()});  // nobody asked
    pipeline.say(message(Kind::kOpened, 1, "text"), {small.fd(), pipeline.wake.get()});
  };
  const auto push = [&] { return mmedge_push_text(client, "text", "x", 1); };
  CHECK(pipeline.beside(answer, push) == MMEDGE_FAILED && says(client, "too small"));
  CHECK(small.ready() == 0);
  mmedge_detach(client);
}

void greetings() {
  const int before = open_descriptors();
  struct Bad {
    Message said;
    bool ring, wake;
    const char* words;
  };
  Message version = message(Kind::kWelcome);
  version.version = 9;
  const std::vector<Bad> all{
      {message(Kind::kWelcome), false, false, "descriptors"},
      {message(Kind::kWelcome), true, false, "descriptors"},
      {version, true, true, "version 9"},
      {message(Kind::kRing, 1), true, false, "greet"},
      {message(Kind::kEnded), false, false, "has ended"},
      {message(Kind::kEnded, 0, "", "16 are"), false, false, "16 are"},
  };
  for (const Bad& bad : all) {
    TestPipeline pipeline;
    const auto answer = [&] {
      pipeline.accept();
      std::vector<int> fds;
      if (bad.ring) fds.push_back(pipeline.results.fd());
      if (bad.wake) fds.push_back(pipeline.wake.get());
      pipeline.say(bad.said, fds);  // without having heard anything
      pipeline.leave();
    };
    mmedge_client* client = nullptr;
    const auto attach = [&] { return mmedge_attach(pipeline.path.c_str(), &client); };
    CHECK(pipeline.beside(answer, attach) == MMEDGE_FAILED && client == nullptr && says(nullptr, bad.words));
    const auto leave = [&] {
      pipeline.accept();
      pipeline.leave();
    };
    CHECK(pipeline.beside(leave, attach) == MMEDGE_FAILED && says(nullptr, "has died"));
    // Not an eventfd, but a file that nothing can be waited for on.
    const Descriptor file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    const auto odd = [&] {
      pipeline.accept();
      pipeline.say(message(Kind::kWelcome), {pipeline.results.fd(), file.get()});
    };
    CHECK(pipeline.beside(odd, attach) == MMEDGE_FAILED && says(nullptr, "cannot be waited for"));
  }
  CHECK(open_descriptors() == before);
}

void nobody_there() {
  const int before = open_descriptors();
  mmedge_client* client = nullptr;
  const auto status = [&](const std::string& path) { return mmedge_attach(path.c_str(), &client); };
  TestPipeline stream(SOCK_STREAM);
  CHECK(status(stream.path) == MMEDGE_FAILED && says(nullptr, stream.path.c_str()));
  CHECK(status(stream.path + "x") == MMEDGE_FAILED && says(nullptr, "No such file"));
  CHECK(status("/proc/self/exe") == MMEDGE_FAILED && status("/tmp") == MMEDGE_FAILED);
  CHECK(status("") == MMEDGE_INVALID && status(std::string(108, 'x')) == MMEDGE_INVALID);
  CHECK(client == nullptr && open_descriptors() == before + 3);
}

}  // namespace

int main() {
  records();
  pictures();
  messages();
  opened();
  greetings();
  nobody_there();
  return 0;
}
