#include "cuda/device.hpp"

namespace mmedge::cuda {

int Device::count() {
  const Driver& driver = Driver::get();
  int count = 0;
  driver.check(driver.cuDeviceGetCount(&count), "cuDeviceGetCount");
  return count;
}

Facts Device::facts(int ordinal) {
  const Driver& driver = Driver::get();
  int device = 0;
  driver.check(driver.cuDeviceGet(&device, ordinal), "cuDeviceGet");
  const auto attribute = [&](int which) {
    int value = 0;
    driver.check(driver.cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
    return value;
  };
  char name[256] = {};
  driver.check(driver.cuDeviceGetName(name, sizeof name - 1, device), "cuDeviceGetName");
  Facts facts{name, attribute(kComputeMajor), attribute(kComputeMinor), 0, attribute(kIntegrated) != 0, 0};
  driver.check(driver.cuDeviceTotalMem_v2(&facts.memory_bytes, device), "cuDeviceTotalMem");
  driver.check(driver.cuDriverGetVersion(&facts.cuda_version), "cuDriverGetVersion");
  return facts;
}

std::shared_ptr<Device> Device::open(int ordinal) { return std::shared_ptr<Device>(new Device(ordinal)); }

Device::Device(int ordinal) : driver_(Driver::get()) {
  driver_.check(driver_.cuDeviceGet(&device_, ordinal), "cuDeviceGet");
  driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Device::~Device() { driver_.cuDevicePrimaryCtxRelease_v2(device_); }

std::size_t Device::free_bytes() const {
  const Current current(*this);
  std::size_t free = 0, total = 0;
  driver_.check(driver_.cuMemGetInfo_v2(&free, &total), "cuMemGetInfo");
  return free;
}

}  // namespace mmedge::cuda
