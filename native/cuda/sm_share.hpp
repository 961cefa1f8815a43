// A part of a GPU's multiprocessors (SMs) for the stage that must not wait, and the rest for all others.
#pragma once

#include <memory>

#include "cuda/device.hpp"

namespace mmedge::cuda {

// Two green contexts of one split. Streams of either run on its SMs alone, whatever the other one does.
class SmShare {
 public:
  // `wanted` SMs for the one part; the driver rounds up to what it can split. Throws CudaError where the
  // driver has no green contexts, or the GPU cannot be split so.
  SmShare(std::shared_ptr<Device> device, unsigned wanted);
  ~SmShare();
  SmShare(const SmShare&) = delete;
  SmShare& operator=(const SmShare&) = delete;

  // A stream on the reserved SMs, or on the rest; its owner destroys it before the share. Throws CudaError.
  CUstream_st* stream(bool reserved) const;
  // How many SMs each part has.
  unsigned reserved() const { return reserved_count_; }
  unsigned rest() const { return rest_count_; }

 private:
  CUgreenCtx_st* make(DevResource* part) const;

  std::shared_ptr<Device> device_;
  const Driver& driver_;
  CUgreenCtx_st *reserved_ = nullptr, *rest_ = nullptr;
  unsigned reserved_count_ = 0, rest_count_ = 0;
};

}  // namespace mmedge::cuda
