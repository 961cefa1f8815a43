#include <cstdint>
#include <thread>
#include <vector>

#include "callback_blocks.hpp"
#include "check.hpp"

using mmedge::CallbackBlocks;

namespace {

int give(CallbackBlocks& blocks, const std::vector<float>& samples, unsigned long frames, double at_s,
         unsigned long flags = 0) {
  const double times[3] = {at_s, at_s + 1, 0};
  return CallbackBlocks::deliver(samples.data(), nullptr, frames, times, flags, &blocks);
}

void blocks_come_as_they_were_given() {
  CallbackBlocks blocks(4, 3, 2);
  CHECK(blocks.front() == nullptr && blocks.channels() == 2);
  CHECK(give(blocks, {1, 10, 2, 20, 3, 30}, 3, 5.0) == 0);
  CHECK(give(blocks, {4, 40}, 1, 6.0, 2) == 0);
  const CallbackBlocks::Block* block = blocks.front();
  CHECK(block != nullptr && block->frames == 3 && block->counted == 3 && !block->overflow);
  CHECK(block->adc_s == 5.0 && block->current_s == 6.0 && block->entry_ns > 0);
  std::vector<float> out(6);
  blocks.copy_planar(out.data());
  CHECK((out == std::vector<float>{1, 2, 3, 10, 20, 30}));
  blocks.pop();
  block = blocks.front();
  CHECK(block != nullptr && block->frames == 1 && block->counted == 4 && block->overflow);
  CHECK(blocks.overflows() == 1);
  blocks.pop();
  CHECK(blocks.front() == nullptr);
}

void what_finds_no_room_is_counted() {
  CallbackBlocks blocks(2, 2, 1);
  for (int i = 0; i < 5; ++i) give(blocks, {1, 2}, 2, i, 2);
  give(blocks, {1, 2, 3}, 3, 9);  // larger than was agreed on
  CHECK(blocks.front()->counted == 2);
  blocks.pop();
  CHECK(blocks.front()->counted == 4);
  blocks.pop();
  CHECK(blocks.front() == nullptr && blocks.overflows() == 5);
  give(blocks, {7, 8}, 2, 10);
  CHECK(blocks.front()->counted == 15);
}

void nothing_in_is_nothing() {
  CallbackBlocks blocks(1, 1, 1);
  const double times[3] = {};
  const float sample = 1;
  CHECK(CallbackBlocks::deliver(nullptr, nullptr, 1, times, 0, &blocks) == 0);
  CHECK(CallbackBlocks::deliver(&sample, nullptr, 1, nullptr, 0, &blocks) == 0);
  CHECK(blocks.front() == nullptr);
  for (const auto& sizes : {std::vector<std::int64_t>{0, 1, 1}, {1, 0, 1}, {1, 1, -1}}) {
    CHECK(refuses([&] { const CallbackBlocks none(sizes[0], sizes[1], sizes[2]); }));
  }
}

void waiting_ends() {
  CallbackBlocks blocks(2, 1, 1);
  blocks.wait(1);  // nothing comes
  std::thread other([&] { give(blocks, {1}, 1, 0); });
  while (blocks.front() == nullptr) blocks.wait(-1);
  other.join();
  blocks.pop();
  std::thread closer([&] { blocks.close(); });
  while (!blocks.closed()) blocks.wait(-1);
  blocks.wait(-1);
  closer.join();
}

void threads_lose_nothing_that_is_counted() {
  constexpr std::int64_t kBlocks = 20'000;
  CallbackBlocks blocks(8, 2, 2);
  std::thread writer([&] {
    for (std::int64_t i = 0; i < kBlocks; ++i) {
      const auto value = static_cast<float>(i % 4096);
      give(blocks, {value, -value, value, -value}, 2, static_cast<double>(i));
    }
    blocks.close();
  });
  std::int64_t last = 0, taken = 0;
  std::vector<float> out(4);
  for (bool more = true; more;) {
    more = !blocks.closed();
    blocks.wait(1);
    for (const CallbackBlocks::Block* block; (block = blocks.front()) != nullptr; blocks.pop()) {
      blocks.copy_planar(out.data());
      const auto number = static_cast<std::int64_t>(block->adc_s);
      CHECK(block->counted == 2 * (number + 1) && block->counted > last);
      CHECK(out[0] == static_cast<float>(number % 4096) && out[0] == out[1] && out[2] == -out[0]);
      last = block->counted;
      ++taken;
    }
  }
  writer.join();
  CHECK(taken > 0);
}

}  // namespace

int main() {
  blocks_come_as_they_were_given();
  what_finds_no_room_is_counted();
  nothing_in_is_nothing();
  waiting_ends();
  threads_lose_nothing_that_is_counted();
  return 0;
}
