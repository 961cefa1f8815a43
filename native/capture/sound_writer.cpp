#include "capture/sound_writer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "integers.hpp"

namespace mmedge {
namespace {

constexpr std::uint64_t kOne = 1;

}  // namespace

SoundWriter::SoundWriter(RecordQueue& records, int wake_fd)
    : records_(records), wake_fd_(fcntl(wake_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)) {
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "the eventfd of a reader");
}

SoundWriter::~SoundWriter() { ::close(wake_fd_); }

void SoundWriter::add(SampleRing& ring, std::uint32_t number) { streams_.emplace_back(ring, number); }

void SoundWriter::put(std::size_t stream, SoundRecord record, const float* samples) {
  Stream& to = streams_[stream];
  record.ring = to.number;
  record.end = to.ring.write(samples, static_cast<std::size_t>(record.n));
  record.lost = std::min(SoundRecord::kMaxLost, mmedge::add(to.lost, record.lost));
  const Newest newest{record.arrive_ns, record.capture_ns, record.epoch};
  if (records_.put(reinterpret_cast<const char*>(&record), sizeof record, newest)) {
    to.lost = 0;
  } else {
    to.lost = mmedge::add(record.lost, record.n);
    to.dropped.fetch_add(1, std::memory_order_relaxed);
  }
}

void SoundWriter::wake() const { [[maybe_unused]] const ssize_t n = write(wake_fd_, &kOne, sizeof kOne); }

}  // namespace mmedge
