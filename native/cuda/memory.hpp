// Memory that is freed with its last owner: pinned on the host, and on the GPU.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "cuda/device.hpp"

namespace mmedge::cuda {

// Zeros that the GPU copies from and to without a detour, or where it is integrated reads and writes in
// place.
class HostMemory {
 public:
  HostMemory(std::shared_ptr<Device> device, std::size_t bytes) : device_(std::move(device)) {
    const Current current(*device_);
    const Driver& driver = device_->driver();
    driver.check(driver.cuMemHostAlloc(&data_, bytes, kPortable | kDeviceMap),
                 "pinning " + std::to_string(bytes) + " bytes");
    std::memset(data_, 0, bytes);
  }
  ~HostMemory() {
    quietly(*device_, [this] { device_->driver().cuMemFreeHost(data_); });
  }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  void* data() const { return data_; }
  // The same memory as the GPU sees it.
  DeviceAddress mapped() const {
    const Current current(*device_);
    DeviceAddress address = 0;
    device_->driver().check(device_->driver().cuMemHostGetDevicePointer_v2(&address, data_, 0),
                            "mapping pinned memory");
    return address;
  }

 private:
  std::shared_ptr<Device> device_;
  void* data_ = nullptr;
};

// Zeros on the GPU.
class DeviceMemory {
 public:
  DeviceMemory(std::shared_ptr<Device> device, std::size_t bytes)
      : device_(std::move(device)), bytes_(bytes) {
    const Current current(*device_);
    const Driver& driver = device_->driver();
    driver.check(driver.cuMemAlloc_v2(&address_, bytes),
                 "allocating " + std::to_string(bytes) + " bytes on the GPU");
    try {
      driver.check(driver.cuMemsetD8_v2(address_, 0, bytes), "cuMemsetD8");
    } catch (...) {
      driver.cuMemFree_v2(address_);
      throw;
    }
  }
  ~DeviceMemory() {
    quietly(*device_, [this] { device_->driver().cuMemFree_v2(address_); });
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Copies `bytes` into it and returns when they are there. Throws std::invalid_argument if there are more.
  void write(const void* from, std::size_t bytes) {
    if (bytes > bytes_) throw std::invalid_argument("more bytes than the memory has");
    const Current current(*device_);
    device_->driver().check(device_->driver().cuMemcpyHtoD_v2(address_, from, bytes), "cuMemcpyHtoD");
  }
  DeviceAddress address() const { return address_; }

 private:
  std::shared_ptr<Device> device_;
  std::size_t bytes_;
  DeviceAddress address_ = 0;
};

}  // namespace mmedge::cuda
