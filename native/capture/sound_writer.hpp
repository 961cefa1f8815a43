// Sound on its way to another process: samples into rings, a record of each block into a queue.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "record_queue.hpp"
#include "sample_ring.hpp"
#include "sound_records.hpp"

namespace mmedge {

// Writes as `mmedge.ipc.channel.PacketWriter` does, into the same rings and the same queue, which have one
// writer at a time: whoever made them writes nothing while this does.
class SoundWriter {
 public:
  // `wake_fd`: the eventfd to set when something has come; the caller keeps it. Throws std::system_error when
  // it is none.
  SoundWriter(RecordQueue& records, int wake_fd);
  ~SoundWriter();
  SoundWriter(const SoundWriter&) = delete;
  SoundWriter& operator=(const SoundWriter&) = delete;

  // Adds a stream, whose ring was announced under `number`.
  void add(SampleRing& ring, std::uint32_t number);
  std::size_t streams() const { return streams_.size(); }

  // Hands over a block of a stream, of which `record` says all but where it lies; one that finds no room is
  // lost before the next.
  void put(std::size_t stream, SoundRecord record, const float* samples);
  // Wakes the reader.
  void wake() const;
  // Blocks of a stream that found no room. Any thread may ask.
  std::int64_t dropped(std::size_t stream) const {
    return streams_[stream].dropped.load(std::memory_order_relaxed);
  }

 private:
  struct Stream {
    Stream(SampleRing& samples, std::uint32_t announced) : ring(samples), number(announced) {}
    SampleRing& ring;
    std::uint32_t number;
    std::int64_t lost = 0;  // in blocks that found no room, before the next
    std::atomic<std::int64_t> dropped{0};
  };

  RecordQueue& records_;
  int wake_fd_;
  std::deque<Stream> streams_;
};

}  // namespace mmedge
