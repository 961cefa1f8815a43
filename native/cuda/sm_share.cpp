#include "cuda/sm_share.hpp"

#include <string>
#include <utility>

namespace mmedge::cuda {

SmShare::SmShare(std::shared_ptr<Device> device, unsigned wanted)
    : device_(std::move(device)), driver_(device_->driver()) {
  driver_.require_green();
  const Current current(*device_);
  DevResource all{}, part{}, rest{};
  driver_.check(driver_.cuDeviceGetDevResource(device_->ordinal(), &all, kSmResource),
                "cuDeviceGetDevResource");
  const std::string parts = std::to_string(wanted) + " of " + std::to_string(all.sm.count) + " SMs";
  const char* const fix = "reserve fewer SMs, or none";
  if (wanted == 0 || wanted >= all.sm.count)
    throw CudaError("the GPU cannot be split: " + parts + " leave nothing for one side", 0, fix);
  unsigned groups = 1;
  driver_.check(driver_.cuDevSmResourceSplitByCount(&part, &groups, &all, &rest, 0, wanted),
                "reserving " + parts);
  if (groups != 1 || part.sm.count < wanted || rest.type != kSmResource || rest.sm.count == 0)
    throw CudaError("the GPU cannot be split: no SMs are left beside " + std::to_string(wanted), 0, fix);
  reserved_ = make(&part);
  try {
    rest_ = make(&rest);
  } catch (...) {
    driver_.cuGreenCtxDestroy(reserved_);
    throw;
  }
  reserved_count_ = part.sm.count, rest_count_ = rest.sm.count;
}

SmShare::~SmShare() {
  quietly(*device_, [this] { driver_.cuGreenCtxDestroy(rest_); });
  quietly(*device_, [this] { driver_.cuGreenCtxDestroy(reserved_); });
}

CUgreenCtx_st* SmShare::make(DevResource* part) const {
  CUdevResourceDesc_st* description = nullptr;
  driver_.check(driver_.cuDevResourceGenerateDesc(&description, part, 1), "cuDevResourceGenerateDesc");
  CUgreenCtx_st* made = nullptr;
  driver_.check(driver_.cuGreenCtxCreate(&made, description, device_->ordinal(), kGreenDefaultStream),
                "cuGreenCtxCreate");
  return made;
}

CUstream_st* SmShare::stream(bool reserved) const {
  const Current current(*device_);
  CUstream_st* made = nullptr;
  driver_.check(driver_.cuGreenCtxStreamCreate(&made, reserved ? reserved_ : rest_, kNonBlocking, 0),
                "cuGreenCtxStreamCreate");
  return made;
}

}  // namespace mmedge::cuda
