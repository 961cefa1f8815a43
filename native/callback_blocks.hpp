// Blocks of sound as PortAudio's thread delivers them: copied and stamped by a function that it calls.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmedge {

// One thread (PortAudio's) writes, another one reads. The writer never waits, allocates or asks for a lock:
// what finds no room is left out, which the next block's count tells.
class CallbackBlocks {
 public:
  struct Block {
    std::int64_t frames;    // of this block, on each channel
    std::int64_t counted;   // of all blocks until the end of this one, those that found no room too
    std::int64_t entry_ns;  // when it was delivered, on CLOCK_MONOTONIC
    double adc_s;           // when its first frame was converted, on PortAudio's clock
    double current_s;       // when it was delivered, on PortAudio's clock
    bool overflow;          // whether PortAudio lost some before it
  };

  // Room for `blocks` of up to `frames` frames of `channels` channels. Throws std::invalid_argument unless
  // each is at least 1, std::system_error when the system has no more descriptors.
  CallbackBlocks(std::int64_t blocks, std::int64_t frames, std::int64_t channels);
  ~CallbackBlocks();
  CallbackBlocks(const CallbackBlocks&) = delete;
  CallbackBlocks& operator=(const CallbackBlocks&) = delete;

  // A PaStreamCallback (portaudio.h) whose userData is a CallbackBlocks: interleaved float32 comes in. Always
  // paContinue.
  static int deliver(const void* input, void* output, unsigned long frames, const void* times,
                     unsigned long flags, void* self);

  // Waits until a block is there, `close` was called or the time is over; below 0 waits for ever.
  void wait(int timeout_ms) const;
  // Waits so for the oldest block and returns it, to be given back by `pop`; none when none came, or once
  // `close` was called.
  const Block* next(int timeout_ms) const;
  // The oldest block, which `pop` gives back; none where there is none.
  const Block* front() const;
  // Its samples, one channel after the other: channels() * front()->frames values.
  void copy_planar(float* out) const;
  void pop();

  // From now on nobody is waited for. Any thread may call it.
  void close();
  bool closed() const { return closed_.load(std::memory_order_acquire); }
  std::int64_t overflows() const { return overflows_.load(std::memory_order_relaxed); }
  std::int64_t channels() const { return channels_; }

 private:
  void add(const float* samples, std::int64_t frames, const double* times, bool overflow);
  std::size_t place(std::uint64_t number) const { return static_cast<std::size_t>(number % blocks_.size()); }
  void wake() const;

  std::int64_t frames_, channels_;
  std::vector<Block> blocks_;
  std::vector<float> samples_;
  std::int64_t counted_ = 0;  // the writer's
  std::atomic<std::uint64_t> written_{0}, read_{0};
  std::atomic<std::int64_t> overflows_{0};
  std::atomic<bool> closed_{false};
  int wake_ = -1;
};

}  // namespace mmedge
