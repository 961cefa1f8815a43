// Sound in the synchroniser: a time-indexed ring of samples, cut exactly at the trigger's capture time.
#pragma once

#include "sample_ring.hpp"
#include "sync/fifo.hpp"
#include "sync/stream.hpp"

namespace mmedge {

// Samples by index; the newest block's capture time places them all, within one epoch.
class AudioStream final : public Stream {
 public:
  struct Rules {
    std::int64_t rate_hz = 0;
    std::int64_t window = 0;      // samples
    std::int64_t ahead_ns = 0;    // by how much the window ends after the trigger
    std::int64_t reserve_ns = 0;  // for how long a window must stay readable
  };
  // Throws std::invalid_argument for a rate or a window that is none.
  AudioStream(const StreamRules& rules, const Rules& sound);

  // Takes a block of `n` samples; `lost` ones that are missing before it become silence of the same length.
  Cause push(const Stamp& stamp, const float* samples, std::size_t n, std::int64_t lost);

  // Takes no notice of a block that was let go: the next one says what is missing before it.
  Cause passed(const Stamp&) override { return kTaken; }
  // Whether the window of a trigger at `t_ns` has arrived.
  bool complete(std::int64_t t_ns) const override { return watermark_ns() >= t_ns + sound_.ahead_ns; }
  // The window of a trigger at `t_ns`; it ends at the newest sample when that is older.
  Cut cut(std::int64_t t_ns, bool latest) const override;
  // Sound makes triggers by hops, never by a packet.
  Cut admit(const Item&, std::int64_t t_ns) const override { return cut(t_ns, false); }

  std::int64_t lost() const { return lost_; }
  // Its memory is shared: who reads results in another process may copy what they were made from.
  const SampleRing& ring() const { return ring_; }
  // When the instant before sample `end` was sensed.
  std::int64_t end_ns(std::int64_t end) const;

 private:
  struct Hole {
    std::int64_t first, end;
  };

  bool jumped(std::int64_t step_ns, std::int64_t early_ns) override;
  void lose(std::int64_t lost);
  bool in_hole(std::int64_t begin, std::int64_t end) const;

  Rules sound_;
  SampleRing ring_;
  std::int64_t begin_ = 0, end_ = 0;  // of the samples of this epoch
  std::int64_t lost_ = 0;
  std::int64_t coming_ = 0;  // samples that the block which is being taken accounts for
  std::int64_t off_ns_ = 0;  // by how much its time disagrees with the count of samples
  Fifo<Hole> holes_;         // no shorter than a window, but for the newest
};

}  // namespace mmedge
