// Blocks of sound that cross a process border: a record of fixed size each, the samples lie in a ring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sample_ring.hpp"

namespace mmedge {

// What is said of a block, as it lies in the queue; numbers are little-endian, as on every machine that runs
// this. Its first byte tells it from a record of msgpack, which begins with an array.
struct SoundRecord {
  static constexpr std::uint8_t kKind = 1;
  static constexpr std::uint8_t kQualities = 3;
  static constexpr std::int64_t kMaxSamples = 1 << 18;  // of one block
  static constexpr std::int64_t kMaxLost = std::int64_t{1} << 40;

  std::uint8_t kind = kKind;
  std::uint8_t quality = 0;  // of its time stamp, 0 is the best
  std::uint16_t zero = 0;
  std::uint32_t ring = 0;  // the number under which the ring was announced
  std::int64_t seq = 0, capture_ns = 0, arrive_ns = 0, epoch = 0, uncertainty_ns = 0;
  std::int64_t end = 0;   // index after its last sample in the ring
  std::int64_t n = 0;     // samples
  std::int64_t lost = 0;  // samples that are missing before it

  static bool is(std::string_view record) {
    return !record.empty() && static_cast<std::uint8_t>(record[0]) == kKind;
  }
  // Throws std::invalid_argument for what no writer leaves.
  static SoundRecord parse(std::string_view record);
};
static_assert(sizeof(SoundRecord) == 72);

// Blocks of one stream, one after the other, with copies of their samples.
class SoundRun {
 public:
  struct Block {
    SoundRecord record;
    std::size_t first = 0;  // of its samples among those of the run
    std::size_t samples = 0;
    std::int64_t lost = 0;  // what was overwritten before it was read is lost as well
  };

  explicit SoundRun(std::string stream) : stream_(std::move(stream)) {}

  // Takes in a block whose samples are copied from the ring.
  void add(const SoundRecord& record, const SampleRing& ring);
  // Keeps the blocks that arrived before `arrive_ns`, and returns the others.
  SoundRun split(std::int64_t arrive_ns);

  const std::string& stream() const { return stream_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const float* samples(const Block& block) const { return samples_.data() + block.first; }

 private:
  std::string stream_;
  std::vector<Block> blocks_;
  std::vector<float> samples_;
};

// Makes runs of records. Rings are added as they are announced, in the order of their numbers.
class SoundReader {
 public:
  SoundReader() = default;
  SoundReader(const SoundReader&) = delete;
  SoundReader& operator=(const SoundReader&) = delete;
  void add(std::uint32_t number, std::string stream, SampleRing ring);
  std::size_t size() const { return rings_.size(); }
  // Makes a run of the records from the first on, as long as they are blocks of one ring in order of arrival;
  // nothing when the first one's ring is not there. Throws std::invalid_argument as `parse` does, and
  // for samples that were given before: so all that a writer can give is what its ring holds.
  std::optional<SoundRun> read(const std::vector<std::string_view>& records);

 private:
  struct Ring {
    std::string stream;
    SampleRing samples;
    std::int64_t end = 0;  // of the samples that were given
  };
  std::map<std::uint32_t, Ring> rings_;
};

}  // namespace mmedge
