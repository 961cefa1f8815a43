// A GPU: what it is, and its primary context, which CUDA's runtime and TensorRT use, too.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "cuda/driver.hpp"

namespace mmedge::cuda {

struct Facts {
  std::string name;
  int major, minor;  // compute capability
  std::size_t memory_bytes;
  bool integrated;   // CPU and GPU share one memory
  int cuda_version;  // newest that the driver supports, 12060 for 12.6
};

class Device {
 public:
  // Throws CudaError where there is no such device. Makes no context.
  static Facts facts(int ordinal);
  static int count();

  // Retains the primary context. Throws CudaError.
  static std::shared_ptr<Device> open(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Driver& driver() const { return driver_; }
  CUctx_st* context() const { return context_; }
  int ordinal() const { return device_; }
  std::size_t free_bytes() const;

 private:
  explicit Device(int ordinal);

  const Driver& driver_;
  int device_ = 0;
  CUctx_st* context_ = nullptr;
};

// The device is that of this thread's calls until it is destroyed.
class Current {
 public:
  explicit Current(const Device& device) : driver_(device.driver()) {
    driver_.check(driver_.cuCtxPushCurrent_v2(device.context()), "cuCtxPushCurrent");
  }
  ~Current() {
    CUctx_st* context = nullptr;
    driver_.cuCtxPopCurrent_v2(&context);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
};

// For destructors, which cannot throw: what fails there (the driver has shut down, the context is lost) has
// been or will be reported by the calls before and after it.
template <typename Function>
void quietly(const Device& device, Function free) noexcept {
  try {
    const Current current(device);
    free();
  } catch (const CudaError&) {
  }
}

}  // namespace mmedge::cuda
