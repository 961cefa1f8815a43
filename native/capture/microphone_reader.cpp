#include "capture/microphone_reader.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "clock/monotonic.hpp"
#include "integers.hpp"

namespace mmedge {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;
static_assert(kQualities == SoundRecord::kQualities);

// PortAudio's seconds, which may be anything.
std::int64_t to_ns(double seconds) {
  return std::isnan(seconds) ? 0 : round_to_int64(seconds * static_cast<double>(kSecondNs));
}

}  // namespace

MicrophoneReader::MicrophoneReader(CallbackBlocks& blocks, SoundWriter& writer, std::int64_t rate_hz,
                                   const std::array<std::int64_t, kQualities>& floor_ns,
                                   const std::vector<std::vector<std::size_t>>& channels, std::int64_t epoch)
    : blocks_(blocks),
      writer_(writer),
      rate_hz_(rate_hz),
      mixers_(channels.begin(), channels.end()),
      clock_(rate_hz, floor_ns) {
  if (mixers_.size() != writer.streams()) throw std::invalid_argument("each stream must choose its channels");
  progress_.epoch = epoch;
  progress_.streams.resize(mixers_.size());
}

MicrophoneReader::Turn MicrophoneReader::run(int silence_ms, Told& told) {
  while (const CallbackBlocks::Block* block = blocks_.next(silence_ms)) {
    const bool said = read(*block, told);
    blocks_.pop();
    if (said) return Turn::kTold;
  }
  return blocks_.closed() ? Turn::kClosed : Turn::kSilent;
}

bool MicrophoneReader::read(const CallbackBlocks::Block& block, Told& told) {
  const std::int64_t frames = block.frames, channels = blocks_.channels();
  rows_.resize(static_cast<std::size_t>(channels * frames));
  mono_.resize(static_cast<std::size_t>(frames));
  blocks_.copy_planar(rows_.data());
  const Stamp stamp{block.counted, block.entry_ns,
                    add(to_ns(block.adc_s), scale(frames, kSecondNs, rate_hz_)), to_ns(block.current_s)};
  const std::lock_guard lock(mutex_);
  told = {};
  told.before = clock_.quality();
  told.clock = clock_.observe(stamp, block.overflow);
  told.now = clock_.quality();
  if (told.clock.broken) {
    ++progress_.jumps;
    ++progress_.epoch;
    std::fill(progress_.streams.begin(), progress_.streams.end(), Stream{});
  }
  missing_ = add(missing_, scale(told.clock.gap_ns, rate_hz_, kSecondNs, true));
  if (counted_ >= 0) missing_ = add(missing_, block.counted - frames - counted_);  // what found no room
  counted_ = block.counted;
  if (frames > 0) {
    const std::int64_t end_ns = clock_.to_monotonic(clock_.stream_ns(block.counted));
    SoundRecord record;
    record.quality = static_cast<std::uint8_t>(told.now);
    record.arrive_ns = now_ns();
    record.epoch = progress_.epoch;
    record.uncertainty_ns = clock_.clock().uncertainty_ns();
    record.n = frames;
    record.lost = missing_;
    const Channels rows{rows_.data(), static_cast<std::size_t>(channels), static_cast<std::size_t>(frames),
                        static_cast<std::size_t>(frames)};
    for (std::size_t i = 0; i < mixers_.size(); ++i) {
      Stream& stream = progress_.streams[i];
      stream.capture_ns = std::max(stream.capture_ns, end_ns);
      const auto weak = mixers_[i].mix(rows, rate_hz_, mono_.data());
      if (weak) told.mixes.emplace_back(i, *weak);
      record.seq = stream.seq++;
      record.capture_ns = stream.capture_ns;
      writer_.put(i, record, mono_.data());
      progress_.lost = add(progress_.lost, missing_);
      ++progress_.blocks;
    }
    progress_.arrive_ns = record.arrive_ns;
    missing_ = 0;
    writer_.wake();
  }
  return told.clock.broken || told.clock.change != MicrophoneClock::Change::kNone || !told.mixes.empty();
}

MicrophoneReader::State MicrophoneReader::state() const {
  const std::lock_guard lock(mutex_);
  return {progress_, clock_.quality(), clock_.clock()};
}

}  // namespace mmedge
