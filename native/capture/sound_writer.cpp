#include "capture/sound_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "integers.hpp"

namespace mmedge {
namespace {

constexpr std::uint8_t kBlock = 1;                         // a kind that msgpack's records never begin with
constexpr std::int64_t kMostLost = std::int64_t{1} << 40;  // that a reader believes
constexpr std::uint64_t kOne = 1;

// As both sides read it: little endian, as every CPU we run on.
struct SoundRecord {
  std::uint8_t kind, quality;
  std::uint16_t zero;
  std::uint32_t ring;
  std::int64_t seq, capture_ns, arrive_ns, epoch, uncertainty_ns;
  std::int64_t end;  // index after its last sample in the ring
  std::int64_t n, lost;
};
static_assert(sizeof(SoundRecord) == 72, "the record has no gaps");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the record is little endian");

}  // namespace

SoundWriter::SoundWriter(RecordQueue& records, int wake_fd)
    : records_(records), wake_fd_(fcntl(wake_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)) {
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "the eventfd of a reader");
}

SoundWriter::~SoundWriter() { ::close(wake_fd_); }

void SoundWriter::add(SampleRing& ring, std::uint32_t number) { streams_.emplace_back(ring, number); }

void SoundWriter::put(std::size_t stream, const Block& block) {
  Stream& to = streams_[stream];
  const std::int64_t lost = std::min(kMostLost, mmedge::add(to.lost, block.lost));
  const std::int64_t end = to.ring.write(block.samples, static_cast<std::size_t>(block.n));
  const SoundRecord record{kBlock,
                           static_cast<std::uint8_t>(block.quality),
                           0,
                           to.number,
                           block.seq,
                           block.capture_ns,
                           block.arrive_ns,
                           block.epoch,
                           block.uncertainty_ns,
                           end,
                           block.n,
                           lost};
  const Newest newest{block.arrive_ns, block.capture_ns, block.epoch};
  if (records_.put(reinterpret_cast<const char*>(&record), sizeof record, newest)) {
    to.lost = 0;
  } else {
    to.lost = mmedge::add(lost, block.n);
    to.dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

void SoundWriter::wake() const { [[maybe_unused]] const ssize_t n = write(wake_fd_, &kOne, sizeof kOne); }

}  // namespace mmedge
