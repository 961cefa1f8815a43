#include "sound_records.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace mmedge {

SoundRecord SoundRecord::parse(std::string_view record) {
  SoundRecord parsed;
  if (!is(record) || record.size() != sizeof parsed) throw std::invalid_argument("a block has another size");
  std::memcpy(&parsed, record.data(), sizeof parsed);
  if (parsed.zero != 0 || parsed.quality >= kQualities)
    throw std::invalid_argument("a block says what none does");
  if (parsed.n < 0 || parsed.n > kMaxSamples || parsed.lost < 0 || parsed.lost > kMaxLost)
    throw std::invalid_argument(std::to_string(parsed.n) + " samples in one block, " +
                                std::to_string(parsed.lost) + " lost before it");
  return parsed;
}

void SoundRun::add(const SoundRecord& record, const SampleRing& ring) {
  const std::size_t first = samples_.size();
  const std::int64_t most = std::min(record.n, ring.capacity());
  samples_.resize(first + static_cast<std::size_t>(most));
  const std::int64_t real = ring.read(record.end, samples_.data() + first, static_cast<std::size_t>(most));
  // Overwritten before they were read: the oldest are gone, and their time stays. Room for what is gone would
  // let a writer that counts up have any amount of memory.
  const auto from = samples_.begin() + static_cast<std::ptrdiff_t>(first);
  samples_.erase(from, from + (most - real));
  blocks_.push_back({record, first, static_cast<std::size_t>(real), record.lost + (record.n - real)});
}

SoundRun SoundRun::split(std::int64_t arrive_ns) {
  SoundRun later(stream_);
  std::size_t kept = 0;
  while (kept < blocks_.size() && blocks_[kept].record.arrive_ns < arrive_ns) ++kept;
  if (kept == 0) {
    std::swap(later, *this);
    return later;
  }
  if (kept == blocks_.size()) return later;
  const std::size_t first = blocks_[kept].first;
  later.samples_.assign(samples_.begin() + static_cast<std::ptrdiff_t>(first), samples_.end());
  for (std::size_t i = kept; i < blocks_.size(); ++i) {
    later.blocks_.push_back(blocks_[i]);
    later.blocks_.back().first -= first;
  }
  blocks_.resize(kept);
  return later;
}

void SoundReader::add(std::uint32_t number, std::string stream, SampleRing ring) {
  rings_.erase(number);
  rings_.emplace(number, Ring{std::move(stream), std::move(ring), 0});
}

std::optional<SoundRun> SoundReader::read(const std::vector<std::string_view>& records) {
  std::optional<SoundRun> run;
  Ring* ring = nullptr;
  std::int64_t arrive_ns = 0;
  for (const std::string_view record : records) {
    if (!SoundRecord::is(record)) break;
    const SoundRecord block = SoundRecord::parse(record);
    const auto found = rings_.find(block.ring);
    if (found == rings_.end()) break;
    if (run && (ring != &found->second || block.arrive_ns < arrive_ns)) break;
    ring = &found->second;
    if (block.end < block.n || block.end - block.n < ring->end)
      throw std::invalid_argument("a block holds samples that were given before");
    ring->end = block.end;
    arrive_ns = block.arrive_ns;
    if (!run) run.emplace(ring->stream);
    run->add(block, ring->samples);
  }
  return run;
}

}  // namespace mmedge
