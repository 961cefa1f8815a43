// A program attaches to a pipeline: results, pictures, and both ends of the run.
#include <poll.h>

#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "attach_pipeline.hpp"

namespace {

using mmedge::SlotRing;
using mmedge::attach::Kind;
using mmedge::attach::message;
using mmedge::attach::RecordParts;
using mmedge::attach::TestPipeline;

bool readable(const mmedge_client* client) {
  pollfd ready{mmedge_fd(client), POLLIN, 0};
  return poll(&ready, 1, 0) == 1;
}

mmedge_result* next(mmedge_client* client) {
  mmedge_result* result = nullptr;
  CHECK(mmedge_next(client, 1000, &result) == MMEDGE_OK && result != nullptr);
  return result;
}

bool says(const mmedge_client* client, const char* words) {
  return std::strstr(mmedge_error(client), words) != nullptr;
}

RecordParts numbered(std::int64_t number) {
  RecordParts parts;
  parts.head.t_ns = number;
  return parts;
}

void one_result() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  mmedge_result* result = nullptr;
  CHECK(!readable(client) && mmedge_next(client, 0, &result) == MMEDGE_TIMEOUT && result == nullptr);
  CHECK(mmedge_next(client, 20, &result) == MMEDGE_TIMEOUT && says(client, "in time"));
  RecordParts parts = numbered(5).task("digit", "seven", 0.75).task("distance", nullptr, NAN, 2.5);
  parts.head.unix_ns = 6;
  parts.head.ok = 1;
  parts.json = "{\"a\": 1}";
  pipeline.publish(parts.bytes());
  CHECK(readable(client));
  result = next(client);
  CHECK(mmedge_result_t_ns(result) == 5 && mmedge_result_unix_ns(result) == 6 &&
        mmedge_result_ok(result) == 1);
  std::size_t size = 0;
  CHECK(mmedge_result_json(result, &size) == std::string("{\"a\": 1}") && size == 8);
  CHECK(mmedge_result_json(result, nullptr)[size] == 0);
  mmedge_task task{};
  CHECK(mmedge_result_task(result, "digit", &task) == MMEDGE_OK && task.label == std::string("seven"));
  CHECK(task.score == 0.75 && task.value == 0.5);
  CHECK(mmedge_result_task(result, "distance", &task) == MMEDGE_OK && task.label == nullptr);
  CHECK(std::isnan(task.score) && task.value == 2.5);
  CHECK(mmedge_result_task(result, "none", &task) == MMEDGE_ABSENT && says(client, "no task 'none'"));
  mmedge_frame frame{};
  CHECK(mmedge_result_frame(result, "camera", &frame) == MMEDGE_ABSENT && says(client, "'camera'"));
  mmedge_release(client, result);
  mmedge_release(client, result);  // is left alone
  CHECK(mmedge_next(client, 0, &result) == MMEDGE_TIMEOUT && !readable(client));
  mmedge_detach(client);
}

void order_and_loss() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  for (int turn = 0; turn < 3; ++turn) {
    for (int i = 0; i < 70; ++i) pipeline.publish(numbered(i).bytes());
    CHECK(mmedge_dropped(client) == static_cast<std::uint64_t>(6 * (turn + 1)));
    for (int i = 6; i < 70; ++i) {
      CHECK(readable(client));
      mmedge_result* const result = next(client);
      CHECK(mmedge_result_t_ns(result) == i);
      mmedge_release(client, result);
    }
  }
  // What is held is not written again; the program keeps some of it until it leaves.
  pipeline.publish(numbered(1000).bytes());
  mmedge_result* const held = next(client);
  for (int i = 0; i < 200; ++i) pipeline.publish(numbered(i).bytes());
  CHECK(mmedge_result_t_ns(held) == 1000 && mmedge_result_t_ns(next(client)) == 200 - 63);
  mmedge_detach(client);
}

// A program that waits is woken.
void all_held() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  std::vector<mmedge_result*> held;
  for (int i = 0; i < 64; ++i) {
    pipeline.publish(numbered(i).bytes());
    held.push_back(next(client));
  }
  mmedge_result* result = nullptr;
  CHECK(mmedge_next(client, -1, &result) == MMEDGE_INVALID && says(client, "release some"));
  mmedge_release(client, held[5]);
  pipeline.publish(numbered(64).bytes());
  CHECK(mmedge_result_t_ns(next(client)) == 64);
  mmedge_detach(client);
}

void waiting() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  const auto later = [&] {
    usleep(30'000);
    pipeline.publish(numbered(1).bytes());
  };
  for (const std::int64_t timeout_ms : {std::int64_t{-1}, std::int64_t{INT64_MAX}}) {
    const mmedge_status status = pipeline.beside(later, [&] {
      mmedge_result* result = nullptr;
      const mmedge_status got = mmedge_next(client, timeout_ms, &result);
      mmedge_release(client, result);
      return got;
    });
    CHECK(status == MMEDGE_OK);
  }
  mmedge_detach(client);
}

// Two slots of pictures; what is in them is their sequence number.
struct Pictures {
  SlotRing ring{2, 8};
  std::int64_t slot = -1;
  std::uint64_t seq = 0;

  void take() {
    if (slot >= 0) ring.release(slot);
    slot = ring.acquire(false);
    std::memset(ring.data(slot), static_cast<int>(seq + 1), 8);
    seq = ring.hold(slot);
  }
};

void pictures() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  Pictures camera;
  camera.take();
  pipeline.say(message(Kind::kRing, 3, "camera"), {camera.ring.fd()});
  pipeline.publish(
      RecordParts{}.picture("camera", 3, camera.slot, camera.seq).picture("file", 0, 0, 1).bytes());
  mmedge_result* const result = next(client);
  mmedge_frame frame{};
  CHECK(mmedge_result_frame(result, "file", &frame) == MMEDGE_ABSENT);
  CHECK(mmedge_result_frame(result, "camera", &frame) == MMEDGE_OK);
  CHECK(frame.bytes == 8 && frame.width == 4 && frame.height == 2 && frame.capture_ns == 7);
  CHECK(frame.pixel_width == 2 && frame.pixel_height == 3 && frame.rotation == 90 && frame.mirrored == 1);
  CHECK(frame.format == std::string("gray8") && frame.matrix == std::string("bt601"));
  CHECK(frame.data[0] == 1 && frame.data[7] == 1 && mmedge_frame_intact(client, &frame) == 1);
  std::uint8_t out[9] = {};
  CHECK(mmedge_frame_copy(client, &frame, out, 7) == MMEDGE_INVALID);
  CHECK(mmedge_frame_copy(client, &frame, out, sizeof out) == MMEDGE_OK && out[7] == 1 && out[8] == 0);
  camera.take();  // its other slot
  CHECK(mmedge_frame_intact(client, &frame) == 1);
  camera.take();
  CHECK(mmedge_frame_intact(client, &frame) == 0 && frame.data[7] == 3);
  CHECK(mmedge_frame_copy(client, &frame, out, sizeof out) == MMEDGE_GONE && says(client, "overwritten"));
  CHECK(mmedge_result_frame(result, "camera", &frame) == MMEDGE_GONE);
  mmedge_frame wrong = frame;
  wrong.slot = 2;
  CHECK(mmedge_frame_copy(client, &wrong, out, sizeof out) == MMEDGE_INVALID);
  CHECK(mmedge_frame_intact(client, &wrong) == 0);
  wrong.ring = 77;
  CHECK(mmedge_frame_copy(client, &wrong, out, sizeof out) == MMEDGE_GONE);
  mmedge_release(client, result);
  mmedge_detach(client);
}

// An input that begins anew has a new ring; the newest two are known, and what a result points into stays.
void rings() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  Pictures cameras[3];
  for (std::uint32_t i = 0; i < 3; ++i) {
    cameras[i].take();
    pipeline.publish(RecordParts{}.picture("camera", i + 1, cameras[i].slot, cameras[i].seq).bytes());
  }
  mmedge_result* const first = next(client);
  mmedge_result* const second = next(client);
  mmedge_frame frame{}, other{};
  CHECK(mmedge_result_frame(first, "camera", &frame) == MMEDGE_GONE && says(client, "began anew"));
  pipeline.say(message(Kind::kRing, 1, "camera"), {cameras[0].ring.fd()});
  CHECK(mmedge_result_frame(first, "camera", &frame) == MMEDGE_OK && frame.ring == 1);
  pipeline.say(message(Kind::kRing, 2, "camera"), {cameras[1].ring.fd()});
  CHECK(mmedge_result_frame(second, "camera", &other) == MMEDGE_OK &&
        mmedge_frame_intact(client, &frame) == 1);
  pipeline.say(message(Kind::kRing, 3, "camera"), {cameras[2].ring.fd()});
  mmedge_result* const third = next(client);
  CHECK(mmedge_result_frame(third, "camera", &other) == MMEDGE_OK && other.data[0] == 1);
  CHECK(mmedge_frame_intact(client, &frame) == 0 && frame.data[0] == 1);
  CHECK(mmedge_result_frame(first, "camera", &frame) == MMEDGE_GONE);
  CHECK(mmedge_result_frame(second, "camera", &frame) == MMEDGE_OK);
  mmedge_detach(client);
}

void ends(const char* text, mmedge_status status, const char* words) {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  for (int i = 0; i < 2; ++i) pipeline.publish(numbered(i).bytes());
  pipeline.say(message(Kind::kEnded, 0, "", text));
  for (int i = 0; i < 2; ++i) CHECK(mmedge_result_t_ns(next(client)) == i);
  mmedge_result* result = nullptr;
  for (int i = 0; i < 2; ++i) {
    CHECK(mmedge_next(client, -1, &result) == status && result == nullptr);
    CHECK(mmedge_error(client) == std::string(words));
  }
  CHECK(mmedge_push_text(client, "text", "", 1) == status && readable(client));
  mmedge_detach(client);
}

// The end is heard by a push: who polls is told all the same.
void end_while_pushing() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  pipeline.say(message(Kind::kEnded));
  CHECK(mmedge_push_text(client, "text", "", 1) == MMEDGE_ENDED && readable(client));
  mmedge_result* result = nullptr;
  CHECK(mmedge_next(client, 0, &result) == MMEDGE_ENDED);
  mmedge_detach(client);
}

void death() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  pipeline.publish(numbered(1).bytes());
  pipeline.leave();
  CHECK(mmedge_result_t_ns(next(client)) == 1);
  mmedge_result* result = nullptr;
  CHECK(mmedge_next(client, -1, &result) == MMEDGE_FAILED && says(client, "the pipeline has died"));
  CHECK(mmedge_push_text(client, "text", "", 1) == MMEDGE_FAILED && readable(client));
  mmedge_detach(client);
}

// It leaves without having heard what a push asks for, which resets the line: its last words still count.
void last_words() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  const auto answer = [&] {
    usleep(30'000);
    pipeline.say(message(Kind::kEnded, 0, "", "a camera was lost"));
    pipeline.leave();
  };
  const mmedge_status status =
      pipeline.beside(answer, [&] { return mmedge_push_text(client, "text", "", 1); });
  CHECK(status == MMEDGE_FAILED && says(client, "a camera was lost"));
  mmedge_detach(client);
}

void arguments() {
  TestPipeline pipeline;
  mmedge_client* const client = pipeline.attached();
  mmedge_client* none = nullptr;
  mmedge_result* result = nullptr;
  mmedge_frame frame{};
  mmedge_task task{};
  const mmedge_array array{};
  CHECK(mmedge_abi() == MMEDGE_ABI && mmedge_now_ns() > 0);
  CHECK(mmedge_attach(nullptr, &none) == MMEDGE_INVALID && says(nullptr, "NULL"));
  CHECK(mmedge_attach(pipeline.path.c_str(), nullptr) == MMEDGE_INVALID);
  CHECK(mmedge_next(nullptr, 0, &result) == MMEDGE_INVALID &&
        mmedge_next(client, 0, nullptr) == MMEDGE_INVALID);
  CHECK(says(client, "NULL"));
  CHECK(mmedge_result_task(nullptr, "", &task) == MMEDGE_INVALID);
  CHECK(mmedge_result_frame(nullptr, "", &frame) == MMEDGE_INVALID);
  CHECK(mmedge_frame_copy(client, &frame, nullptr, 0) == MMEDGE_INVALID);
  CHECK(mmedge_push(client, nullptr, &array, 0) == MMEDGE_INVALID);
  CHECK(mmedge_push(client, "x", nullptr, 0) == MMEDGE_INVALID);
  CHECK(mmedge_push_text(client, "x", nullptr, 0) == MMEDGE_INVALID);
  CHECK(mmedge_result_t_ns(nullptr) == 0 && mmedge_result_unix_ns(nullptr) == 0 &&
        mmedge_result_ok(nullptr) == 0);
  CHECK(mmedge_result_json(nullptr, nullptr) == std::string_view("") &&
        mmedge_frame_intact(client, nullptr) == 0);
  CHECK(mmedge_fd(nullptr) == -1 && mmedge_dropped(nullptr) == 0);
  mmedge_release(client, nullptr);
  mmedge_release(nullptr, nullptr);
  mmedge_detach(nullptr);
  mmedge_detach(client);
}

}  // namespace

int main() {
  one_result();
  order_and_loss();
  all_held();
  waiting();
  pictures();
  rings();
  ends("", MMEDGE_ENDED, "the run has ended");
  ends("a network failed", MMEDGE_FAILED, "a network failed");
  end_while_pushing();
  death();
  last_words();
  arguments();
  return 0;
}
