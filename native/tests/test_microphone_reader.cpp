#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "capture/microphone_reader.hpp"
#include "check.hpp"

using mmedge::CallbackBlocks;
using mmedge::MicrophoneReader;
using mmedge::RecordQueue;
using mmedge::SampleRing;
using mmedge::SoundRecord;
using mmedge::SoundWriter;
using Turn = mmedge::MicrophoneReader::Turn;

namespace {

constexpr std::int64_t kRate = 1000, kFrames = 10;

// A microphone of two channels whose inputs take the mean, and the second one.
struct Desk {
  CallbackBlocks blocks{8, kFrames, 2};
  RecordQueue records;
  RecordQueue reader = RecordQueue::attach(records.fd());
  SampleRing mean = SampleRing::shared(1000), second = SampleRing::shared(1000);
  int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  SoundWriter writer{records, wake};
  MicrophoneReader microphone;

  explicit Desk(std::int64_t room = 10'000, std::int64_t epoch = 3)
      : records(room), microphone(blocks, announced(), kRate, {1000, 2000, 3000}, {{}, {1}}, epoch) {}
  ~Desk() { ::close(wake); }

  SoundWriter& announced() {
    writer.add(mean, 7);
    writer.add(second, 8);
    return writer;
  }
  void give(float first, float other, unsigned long flags = 0, double at_s = 0) {
    std::vector<float> samples;
    for (int i = 0; i < kFrames; ++i) samples.insert(samples.end(), {first, other});
    const double times[3] = {at_s, at_s, 0};
    CallbackBlocks::deliver(samples.data(), nullptr, kFrames, times, flags, &blocks);
  }
  SoundRecord take() {
    std::string record;
    CHECK(reader.take(record));
    return SoundRecord::parse(record);
  }
  bool empty() {
    std::string record;
    return !reader.take(record);
  }
};

void blocks_become_records() {
  Desk desk;
  MicrophoneReader::Told told{};
  desk.give(1, 3);
  desk.give(5, 7);
  CHECK(desk.microphone.run(0, told) == Turn::kSilent);
  for (std::int64_t seq = 0; seq < 2; ++seq) {
    std::int64_t capture_ns = 0;
    for (const std::uint32_t number : {7u, 8u}) {
      const SoundRecord record = desk.take();
      CHECK(record.ring == number && record.seq == seq && record.epoch == 3 && record.n == kFrames);
      CHECK(record.end == (seq + 1) * kFrames && record.lost == 0 && record.quality == 2);
      CHECK(record.uncertainty_ns >= 3000 && record.capture_ns <= record.arrive_ns && record.capture_ns > 0);
      CHECK(number == 7 || record.capture_ns == capture_ns);
      capture_ns = record.capture_ns;
      std::vector<float> samples(kFrames);
      CHECK((number == 7 ? desk.mean : desk.second).read(record.end, samples.data(), kFrames) == kFrames);
      const auto seconds = static_cast<float>(4 * seq);
      CHECK((samples == std::vector<float>(kFrames, (number == 7 ? 2 : 3) + seconds)));
    }
  }
  CHECK(desk.empty());
  pollfd ready{desk.wake, POLLIN, 0};
  CHECK(poll(&ready, 1, 0) == 1);
  const auto state = desk.microphone.state();
  CHECK(state.progress.blocks == 4 && state.progress.lost == 0 && state.progress.epoch == 3);
  CHECK(state.progress.streams[1].seq == 2 && state.progress.arrive_ns > 0);
}

void what_found_no_room_before_us_is_lost_exactly() {
  Desk desk;
  MicrophoneReader::Told told{};
  for (int i = 0; i < 8; ++i) desk.give(1, 1);
  desk.give(2, 2);  // the slots are full
  CHECK(desk.microphone.run(0, told) == Turn::kSilent);
  desk.give(3, 3);
  CHECK(desk.microphone.run(0, told) == Turn::kSilent);
  for (int i = 0; i < 16; ++i) CHECK(desk.take().lost == 0);
  CHECK(desk.take().lost == kFrames && desk.take().lost == kFrames && desk.empty());
  CHECK(desk.microphone.state().progress.lost == 2 * kFrames);
}

void what_finds_no_room_behind_us_is_lost_too() {
  Desk desk(2 * (sizeof(SoundRecord) + 4));
  MicrophoneReader::Told told{};
  for (int i = 0; i < 3; ++i) desk.give(1, 1);
  CHECK(desk.microphone.run(0, told) == Turn::kSilent);
  CHECK(desk.writer.dropped(0) == 2 && desk.writer.dropped(1) == 2);
  CHECK(desk.take().lost == 0 && desk.take().ring == 8 && desk.empty());
  desk.give(1, 1);
  CHECK(desk.microphone.run(0, told) == Turn::kSilent);
  const SoundRecord first = desk.take(), other = desk.take();
  CHECK(first.lost == 2 * kFrames && other.lost == 2 * kFrames && first.seq == 3 && other.end == 4 * kFrames);
}

void what_must_be_said_comes_back() {
  Desk desk;
  MicrophoneReader::Told told{};
  bool weak = false;
  for (int i = 0; i < 201; ++i) {  // two seconds of channels that cancel each other
    desk.give(0.5f, -0.5f, 0, i == 9 ? std::numeric_limits<double>::quiet_NaN() : HUGE_VAL);
    if (desk.microphone.run(0, told) == Turn::kTold && !told.mixes.empty()) {
      CHECK(told.mixes.size() == 1 && told.mixes[0].first == 0 && !told.mixes[0].second.silent);
      weak = true;
    }
    while (!desk.empty()) continue;
  }
  CHECK(weak);
}

void a_jump_begins_an_epoch() {
  Desk desk;
  MicrophoneReader::Told told{};
  desk.give(1, 1);
  CHECK(desk.microphone.run(0, told) == Turn::kSilent && desk.take().epoch == 3 && desk.take().epoch == 3);
  // Twenty seconds in one block that is larger than was agreed on: the device's own time has another origin.
  const float sample = 0;
  const double times[3] = {};
  CallbackBlocks::deliver(&sample, nullptr, 20 * kRate, times, 0, &desk.blocks);
  desk.give(1, 1);
  CHECK(desk.microphone.run(0, told) == Turn::kTold && told.clock.broken && told.clock.gap_ns == 0);
  const SoundRecord first = desk.take(), other = desk.take();
  CHECK(first.epoch == 4 && first.seq == 0 && other.epoch == 4 && other.seq == 0);
  CHECK(first.lost == 20 * kRate && other.lost == 20 * kRate);
  const auto state = desk.microphone.state();
  CHECK(state.progress.jumps == 1 && state.progress.epoch == 4 && state.progress.streams[0].seq == 1);
}

void closing_ends_it_and_others_may_look() {
  Desk desk(1 << 20);
  std::thread device([&] {
    for (int i = 0; i < 5000; ++i) desk.give(1, 2);
    desk.blocks.close();
  });
  std::thread watcher([&] {
    while (!desk.blocks.closed()) CHECK(desk.microphone.state().progress.streams.size() == 2);
  });
  MicrophoneReader::Told told{};
  Turn turn = Turn::kTold;
  while (turn != Turn::kClosed) turn = desk.microphone.run(60'000, told);
  device.join();
  watcher.join();
}

void what_does_not_fit_is_refused() {
  Desk desk;
  CHECK(refuses([&] { MicrophoneReader one(desk.blocks, desk.writer, kRate, {}, {{}}, 0); }));
  bool failed = false;
  try {
    SoundWriter none(desk.records, -1);
  } catch (const std::system_error&) {
    failed = true;
  }
  CHECK(failed);
}

}  // namespace

int main() {
  blocks_become_records();
  what_found_no_room_before_us_is_lost_exactly();
  what_finds_no_room_behind_us_is_lost_too();
  what_must_be_said_comes_back();
  a_jump_begins_an_epoch();
  closing_ends_it_and_others_may_look();
  what_does_not_fit_is_refused();
  return 0;
}
