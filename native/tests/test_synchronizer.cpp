#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <map>
#include <new>
#include <random>
#include <set>
#include <vector>

#include "check.hpp"
#include "sync/fifo.hpp"
#include "sync/synchronizer.hpp"

namespace {

std::int64_t allocations = 0;

}  // namespace

void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* const memory = std::malloc(bytes ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace mmedge;

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kRate = 8000, kWindow = 800;

Stamp at(std::int64_t capture_ms, std::int64_t arrive_ms, std::int64_t epoch = 0) {
  return {epoch, capture_ms * kMs, arrive_ms * kMs, kMs};
}

// A camera that makes the triggers, a microphone, an array of 100 Hz and a text.
struct Four {
  explicit Four(Synchronizer::Rules rules = {0, 50 * kMs, 300 * kMs, 40 * kMs, false, false, false})
      : sync(rules) {
    image = sync.add_image({}, true);
    audio = sync.add_audio({}, {kRate, kWindow, 0, 1'050 * kMs}, false);
    imu = sync.add_value({}, {std::nullopt, 10 * kMs, true}, false);
    text = sync.add_value({}, {1'000 * kMs, std::nullopt, false}, false);
  }

  void sound(std::int64_t end_ms, std::int64_t arrive_ms, std::int64_t n = 80) {
    const std::vector<float> samples(static_cast<std::size_t>(n), static_cast<float>(end_ms));
    sync.push_block(audio, at(end_ms, arrive_ms), samples.data(), samples.size(), 0);
  }

  std::vector<Slot> drained() {
    std::vector<Slot> slots;
    sync.drain([&](Slot slot) { slots.push_back(slot); });
    return slots;
  }

  Synchronizer sync;
  std::size_t image, audio, imu, text;
};

void fifo() {
  Fifo<int> queue;
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 20; ++i) queue.push_back(i);
    for (int i = 0; i < 10; ++i) CHECK(queue.front() == i && (queue.pop_front(), true));
    CHECK(queue.size() == 10 && queue[0] == 10 && queue.back() == 19);
    queue.pop_back();
    CHECK(queue.back() == 18);
    queue.clear();
    CHECK(queue.empty());
  }
}

void a_trigger_waits_for_sound_and_is_cut_there() {
  Four four;
  four.sound(100, 100, 800);
  const Slot slot = four.sync.push_frame(four.image, at(105, 110), 0, false);
  CHECK(slot == 0 && four.sync.poll() == 0 && four.sync.pending() == 1);
  CHECK(four.sync.next_deadline_ns() == 160 * kMs);
  four.sound(110, 115);
  four.sync.push_value(four.imu, at(104, 116), false);
  CHECK(four.sync.poll() == 1);
  const Cuts& cuts = four.sync.ready(0);
  CHECK(cuts.t_ns == 105 * kMs && cuts.seq == 1 && cuts.on_frame && cuts.wait_ns == 6 * kMs);
  CHECK(cuts.inputs[four.image].slot == slot && cuts.inputs[four.image].age_ns == 0);
  CHECK(cuts.inputs[four.audio].why == kPresent && cuts.inputs[four.audio].end == 840);
  CHECK(cuts.inputs[four.imu].why == kPresent && cuts.inputs[four.imu].age_ns == kMs);
  CHECK(cuts.inputs[four.text].why == kNothingYet);
  CHECK(four.sync.sound(four.audio).end_ns(840) == 105 * kMs);
  four.sync.close();
  CHECK(four.drained() == (std::vector<Slot>{0, 1}) && four.drained().empty());
}

void what_is_refused_has_no_slot_and_is_counted() {
  Four four;
  four.sync.push_frame(four.image, at(100, 100, 1), 0, false);
  CHECK(four.sync.push_frame(four.image, at(140, 140, 0), 0, false) == kNoSlot);
  CHECK(four.sync.push_frame(four.image, at(100, 150, 1), 0, false) == kNoSlot);
  CHECK(four.sync.drops().counts().size() == 2 && four.sync.drops().counts()[0].cause == kOldEpoch);
  CHECK(four.sync.drops().counts()[1].cause == kTimeBackwards);
  four.sync.push_arrival(four.audio, at(0, 150));
  CHECK(four.sync.refused().counts()[0].cause == static_cast<int>(four.audio) * kSkip + kOverrun);
  CHECK(!four.sync.push_end(four.image, at(0, 150, 0), false) &&
        four.sync.push_end(four.image, at(0, 150, 1), true));
  CHECK(four.sync.stream(four.image).ended() && !four.sync.stream(four.image).ended_well());
}

void bad_calls() {
  Four four;
  const float sample = 0;
  CHECK(refuses([&] { four.sync.push_frame(four.audio, at(0, 0), 0, false); }));
  CHECK(refuses([&] { four.sync.push_value(four.image, at(0, 0), false); }));
  CHECK(refuses([&] { four.sync.push_block(four.text, at(0, 0), &sample, 1, 0); }));
  CHECK(refuses([&] { four.sync.push_block(four.audio, at(0, 0), &sample, 1, -1); }));
  CHECK(refuses([&] { four.sync.push_end(9, at(0, 0), false); }));
  CHECK(refuses([&] { four.sync.sound(four.image); }));
  CHECK(refuses([] { Synchronizer sync({0, 0, 0, 0, false, false, false}); }));
  CHECK(refuses([] { Synchronizer({0, 0, 0, 1, false, false, false}).add_audio({}, {0, 1, 0, 0}, false); }));
}

// Anything at any time: nothing overflows (the sanitizers look), triggers are conserved, each slot is drained
// once.
void nonsense(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const bool lossless = random() % 4 == 0;
  const std::int64_t forever = std::int64_t{1} << 62;
  Four four({static_cast<std::int64_t>(random()) % forever, lossless ? forever : 50 * kMs,
             lossless ? forever : 300 * kMs, kMs + static_cast<std::int64_t>(random() % 100) * kMs,
             random() % 3 == 0, random() % 3 == 0, lossless});
  std::set<Slot> held;
  std::int64_t now = 0, answered = 0;
  const std::vector<float> samples(400);
  const auto any = [&] {
    return static_cast<std::int64_t>(random() >> random() % 64) * (random() % 2 ? 1 : -1);
  };
  const auto keep = [&](Slot slot) { CHECK(slot == kNoSlot || held.insert(slot).second); };
  for (int k = 0; k < 3000; ++k) {
    now += static_cast<std::int64_t>(random() % 40) * kMs;
    const bool mad = random() % 40 == 0;
    const Stamp stamp{static_cast<std::int64_t>(mad ? any() : 0), mad ? any() : now - any() % (50 * kMs),
                      mad ? any() : now, mad ? any() : kMs};
    switch (random() % 8) {
      case 0:
      case 1:
        keep(four.sync.push_frame(four.image, stamp, any(), random() % 8 == 0));
        break;
      case 2:
      case 3:
        four.sync.push_block(four.audio, stamp, samples.data(), random() % 400, random() % 99 ? 0 : 5000);
        break;
      case 4:
        keep(four.sync.push_value(four.imu, stamp, false));
        break;
      case 5:
        keep(four.sync.push_value(four.text, stamp, random() % 4 == 0));
        break;
      case 6:
        four.sync.push_arrival(random() % 4, stamp);
        break;
      default:
        if (random() % 20 == 0) four.sync.push_end(random() % 4, stamp, random() % 2);
        break;
    }
    four.sync.advance(mad ? any() : now);
    four.sync.next_deadline_ns();
    four.sync.finished();
    four.sync.ahead_ns(any(), {0, 1, 2, 3});
    for (std::size_t i = 0; i < 4; ++i) four.sync.silence_ns(i, any());
    const std::size_t n = four.sync.poll();
    answered += static_cast<std::int64_t>(n);
    for (std::size_t i = 0; i < n; ++i)
      for (const Cut& cut : four.sync.ready(i).inputs)
        CHECK(cut.slot == kNoSlot || held.count(cut.slot) == 1);
    if (random() % 3 == 0) four.sync.trim();
    for (const Slot slot : four.drained()) CHECK(held.erase(slot) == 1);
    std::int64_t dropped = 0;
    for (const Tally::Count& count : four.sync.drops().counts()) dropped += count.n;
    CHECK(four.sync.triggers() == answered + dropped + static_cast<std::int64_t>(four.sync.pending()));
  }
  four.sync.close();
  for (const Slot slot : four.drained()) CHECK(held.erase(slot) == 1);
  CHECK(held.empty());
}

void nothing_is_allocated_after_warm_up() {
  Four four;
  std::int64_t before = 0, cut = 0;
  const std::vector<float> samples(80, 0.5f);
  for (std::int64_t k = 1; k <= 20'000; ++k) {
    if (k == 5'000) before = allocations;
    four.sync.push_block(four.audio, at(10 * k, 10 * k + 1), samples.data(), samples.size(), 0);
    four.sync.push_value(four.imu, at(10 * k, 10 * k + 1), false);
    if (k % 3 == 0) four.sync.push_frame(four.image, at(10 * k, 10 * k + 2), 0, false);
    if (k % 100 == 0) four.sync.push_value(four.text, at(10 * k, 10 * k + 2), false);
    four.sync.advance((10 * k + 2) * kMs);
    cut += static_cast<std::int64_t>(four.sync.poll());
    four.sync.trim();
    four.sync.drain([](Slot) {});
  }
  CHECK(cut > 6'000 && allocations == before);
}

}  // namespace

int main() {
  fifo();
  a_trigger_waits_for_sound_and_is_cut_there();
  what_is_refused_has_no_slot_and_is_counted();
  bad_calls();
  for (std::uint64_t seed = 0; seed < 40; ++seed) nonsense(seed);
  nothing_is_allocated_after_warm_up();
}
