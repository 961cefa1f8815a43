// A program pushes into inputs of a pipeline, through mmedge.h and mmedge.hpp.
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "attach_pipeline.hpp"
#include "include/mmedge.hpp"

namespace {

using mmedge::SlotRing;
using mmedge::attach::Descriptor;
using mmedge::attach::Kind;
using mmedge::attach::kMaxPush;
using mmedge::attach::Message;
using mmedge::attach::message;
using mmedge::attach::Pushed;
using mmedge::attach::RecordParts;
using mmedge::attach::TestPipeline;

struct Input {
  std::optional<SlotRing> ring;
  Descriptor wake{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

  // Answers the one kOpen that comes, `bytes` long.
  void open(TestPipeline& pipeline, const std::string& name, std::uint64_t bytes, std::int64_t slots = 2) {
    const Message asked = pipeline.hear();
    CHECK(asked.kind == Kind::kOpen && asked.name == name && asked.bytes == bytes);
    ring.emplace(slots, static_cast<std::int64_t>(bytes));
    pipeline.say(message(Kind::kOpened, 1, name), {ring->fd(), wake.get()});
  }

  // The bytes that were pushed first of those that wait.
  std::string take(Pushed& head) {
    const std::optional<SlotRing::Taken> taken = ring->take();
    CHECK(taken && taken->header.size() == sizeof head);
    std::memcpy(&head, taken->header.data(), sizeof head);
    CHECK(head.bytes <= static_cast<std::uint64_t>(ring->slot_bytes()));
    const std::string bytes(reinterpret_cast<const char*>(ring->data(taken->index)),
                            static_cast<std::size_t>(head.bytes));
    ring->release(taken->index);
    return bytes;
  }
};

bool says(const mmedge_client* client, const char* words) {
  return std::strstr(mmedge_error(client), words) != nullptr;
}

mmedge_array floats(const std::vector<float>& values) {
  return {values.data(), MMEDGE_FLOAT32, 2, {1, values.size()}};
}

void arrays() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  Input imu;
  const std::vector<float> values{1, 2, 3};
  const mmedge_array array = floats(values);
  const auto push = [&](const mmedge_array& pushed) { return mmedge_push(client, "imu", &pushed, 9); };
  CHECK(pipeline.beside([&] { imu.open(pipeline, "imu", 12); }, [&] { return push(array); }) == MMEDGE_OK);
  std::uint64_t times = 0;
  CHECK(push(array) == MMEDGE_OK && eventfd_read(imu.wake.get(), &times) == 0 && times == 2);
  CHECK(push(array) == MMEDGE_FULL && says(client, "behind"));
  Pushed head{};
  const std::string bytes = imu.take(head);
  CHECK(bytes.size() == 12 && std::memcmp(bytes.data(), values.data(), 12) == 0);
  CHECK(head.capture_ns == 9 && head.dtype == MMEDGE_FLOAT32 && head.ndim == 2 && head.shape[0] == 1 &&
        head.shape[1] == 3 && head.shape[2] == 0);
  CHECK(push(array) == MMEDGE_OK);
  // More than there is room for: a ring of twice the room, then one of what is needed.
  const std::vector<float> more(4, 4.0F), most(100, 5.0F);
  CHECK(pipeline.beside([&] { imu.open(pipeline, "imu", 24); }, [&] { return push(floats(more)); }) ==
        MMEDGE_OK);
  CHECK(imu.take(head).size() == 16);
  CHECK(pipeline.beside([&] { imu.open(pipeline, "imu", 400); }, [&] { return push(floats(most)); }) ==
        MMEDGE_OK);
  CHECK(imu.take(head).size() == 400 && push(array) == MMEDGE_OK && imu.take(head).size() == 12);
  mmedge_detach(client);
}

void texts() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  Input text;
  const auto push = [&](const std::string& said) {
    return mmedge_push_text(client, "text", said.c_str(), 3);
  };
  CHECK(pipeline.beside([&] { text.open(pipeline, "text", 65536); }, [&] { return push("hello"); }) ==
        MMEDGE_OK);
  Pushed head{};
  CHECK(text.take(head) == "hello" && head.dtype == 0 && head.ndim == 0 && head.capture_ns == 3);
  CHECK(push("") == MMEDGE_OK && text.take(head).empty());
  CHECK(push(std::string(65536, 'x')) == MMEDGE_OK && text.take(head).size() == 65536);
  CHECK(push(std::string(65537, 'x')) == MMEDGE_INVALID);
  mmedge_detach(client);
}

void refused() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  Input a, b;
  const auto push = [&](const char* name) { return mmedge_push_text(client, name, "x", 1); };
  CHECK(pipeline.beside([&] { a.open(pipeline, "a", 65536); }, [&] { return push("a"); }) == MMEDGE_OK);
  CHECK(pipeline.beside([&] { b.open(pipeline, "b", 65536, 4); }, [&] { return push("b"); }) == MMEDGE_OK);
  pipeline.say(message(Kind::kRefused, 1, "a", "no text"));
  pipeline.say(message(Kind::kRefused, 9, "unknown", "whatever"));
  CHECK(push("b") == MMEDGE_OK && push("a") == MMEDGE_REFUSED && says(client, "no text"));
  CHECK(a.ring->ready() == 2);  // it was pushed all the same
  pipeline.say(message(Kind::kRefused, 1, "a", "not again"));
  CHECK(push("a") == MMEDGE_FULL);
  Pushed head{};
  CHECK(a.take(head) == "x" && push("a") == MMEDGE_REFUSED && says(client, "not again"));
  CHECK(a.take(head) == "x" && push("a") == MMEDGE_OK);
  // An input that cannot be pushed into, asked for while other things are said; another time it may be.
  const auto deny = [&] {
    CHECK(pipeline.hear().kind == Kind::kOpen);
    pipeline.say(message(Kind::kRing, 1, "camera"), {a.ring->fd()});
    pipeline.say(message(Kind::kRefused, 2, "b", "too late"));
    pipeline.say(message(Kind::kRefused, 0, "c", "the bundle has no input 'c'"));
  };
  CHECK(pipeline.beside(deny, [&] { return push("c"); }) == MMEDGE_INVALID && says(client, "no input 'c'"));
  CHECK(push("b") == MMEDGE_REFUSED && says(client, "too late"));
  Input c;
  CHECK(pipeline.beside([&] { c.open(pipeline, "c", 65536); }, [&] { return push("c"); }) == MMEDGE_OK);
  mmedge_detach(client);
}

void arguments() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  const std::vector<float> values(4);
  const auto invalid = [&](mmedge_array array, const char* name = "a") {
    return mmedge_push(client, name, &array, 0) == MMEDGE_INVALID;
  };
  const mmedge_array good = floats(values);
  mmedge_array bad = good;
  CHECK(invalid(good, "") && invalid(good, std::string(64, 'x').c_str()));
  bad.ndim = 0;
  CHECK(invalid(bad));
  bad.ndim = 9;
  CHECK(invalid(bad));
  bad = good;
  bad.data = nullptr;
  CHECK(invalid(bad));
  bad = good;
  for (const std::uint64_t side : {kMaxPush / 4 + 1, std::size_t{1} << 62, ~std::size_t{0}}) {
    bad.shape[0] = side;
    CHECK(invalid(bad));
  }
  for (const int dtype : {0, 10, -1}) {
    bad = good;
    std::memcpy(&bad.dtype, &dtype, sizeof dtype);
    CHECK(invalid(bad) && says(client, "dtype"));
  }
  mmedge_detach(client);
}

void cpp() {
  TestPipeline pipeline;
  const auto greet = [&] {
    pipeline.accept();
    pipeline.hear();
    pipeline.say(message(Kind::kWelcome), {pipeline.results.fd(), pipeline.wake.get()});
  };
  mmedge::Client client = pipeline.beside(greet, [&] { return mmedge::Client(pipeline.path); });
  Input a;
  const auto push = [&] { return client.push("a", std::vector<float>(6), {2, 3}, 1); };
  CHECK(pipeline.beside([&] { a.open(pipeline, "a", 24); }, push) == mmedge::Client::Pushed::kTaken);
  const std::uint8_t pixels[6] = {1, 2, 3, 4, 5, 6};
  CHECK(client.push_image("a", pixels, 1, 2, 3, 5) == mmedge::Client::Pushed::kTaken);
  CHECK(client.push("a", std::vector<std::int16_t>(3), 1) == mmedge::Client::Pushed::kFull);
  Pushed head{};
  CHECK(a.take(head).size() == 24 && head.shape[0] == 2 && head.shape[1] == 3);
  CHECK(a.take(head).size() == 6 && head.ndim == 3 && head.shape[0] == 2 && head.shape[1] == 1 &&
        head.shape[2] == 3);
  SlotRing ring(1, 8);
  std::memset(ring.data(ring.acquire(false)), 3, 8);
  const std::uint64_t seq = ring.hold(0);
  pipeline.say(message(Kind::kRing, 1, "camera"), {ring.fd()});
  pipeline.publish(
      RecordParts{}.task("t", "yes", 0.5).task("u", nullptr, 0.25).picture("camera", 1, 0, seq).bytes());
  CHECK(!client.intact(mmedge::Frame{}) && client.fd() >= 0 && client.dropped() == 0);
  {
    const std::optional<mmedge::Result> result = client.next(std::chrono::seconds(1));
    CHECK(result && result->task("t")->label == "yes" && !result->task("u")->label && !result->task("v"));
    CHECK(result->json() == "{}" && !result->ok() && result->t_ns() == 0 && result->unix_ns() == 0);
    const std::optional<mmedge::Frame> frame = result->frame("camera");
    std::vector<std::uint8_t> out;
    CHECK(frame && frame->data[7] == 3 && client.intact(*frame) && client.copy(*frame, out) && out[7] == 3);
    ring.release(0);
    CHECK(ring.acquire(false) == 0 && !client.intact(*frame) && !client.copy(*frame, out));
    CHECK(!result->frame("camera") && !result->frame("none"));
  }
  CHECK(!client.next(std::chrono::milliseconds(0)) && pipeline.results.free() == 64);
  mmedge::Client moved = std::move(client);
  pipeline.say(message(Kind::kEnded));
  try {
    moved.next(std::chrono::seconds(-1));
    CHECK(false);
  } catch (const mmedge::Error& error) {
    CHECK(error.status() == MMEDGE_ENDED && error.what() == moved.error());
  }
}

}  // namespace

int main() {
  arrays();
  texts();
  refused();
  arguments();
  cpp();
  return 0;
}
