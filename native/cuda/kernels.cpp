#include "cuda/kernels.hpp"

#include <limits>
#include <utility>

#ifdef MMEDGE_CUDA_FATBIN
// The compiled kernels, as bytes of this library.
__asm__(
    ".pushsection .rodata\n"
    ".balign 64\n"
    ".hidden mmedge_cuda_fatbin\n"
    ".global mmedge_cuda_fatbin\n"
    "mmedge_cuda_fatbin:\n"
    ".incbin \"" MMEDGE_CUDA_FATBIN
    "\"\n"
    ".popsection\n");
extern "C" const unsigned char mmedge_cuda_fatbin[];
static constexpr bool kBuilt = true;
#else
static constexpr const unsigned char* mmedge_cuda_fatbin = nullptr;
static constexpr bool kBuilt = false;
#endif

namespace mmedge::cuda {
namespace {

constexpr unsigned kThreads = 128;

}  // namespace

bool Kernels::built() { return kBuilt; }

Kernels::Kernels(std::shared_ptr<Device> device) : device_(std::move(device)) {
  if (!built())
    throw CudaError(
        "mmedge was built without CUDA kernels", 0,
        "install CUDA's nvcc, then: pip install -e . --config-settings=cmake.define.MMEDGE_CUDA=ON");
  const Current current(*device_);
  const Driver& driver = device_->driver();
  driver.check(driver.cuModuleLoadData(&module_, mmedge_cuda_fatbin), "loading CUDA kernels");
  try {
    driver.check(driver.cuModuleGetFunction(&picture_, module_, "mmedge_picture"), "cuModuleGetFunction");
    driver.check(driver.cuModuleGetFunction(&dense_, module_, "mmedge_dense"), "cuModuleGetFunction");
  } catch (...) {
    driver.cuModuleUnload(module_);
    throw;
  }
}

Kernels::~Kernels() {
  quietly(*device_, [this] { device_->driver().cuModuleUnload(module_); });
}

void Kernels::launch(const GraphRun& run, CUfunc_st* function, unsigned across, unsigned down, unsigned deep,
                     void** arguments, const char* what) const {
  const Current current(*device_);
  const Driver& driver = device_->driver();
  driver.check(driver.cuLaunchKernel(function, across, down, deep, kThreads, 1, 1, 0, run.stream(), arguments,
                                     nullptr),
               what);
}

void Kernels::picture(const GraphRun& run, const Picture& picture, DeviceAddress from, DeviceAddress rows,
                      DeviceAddress columns, DeviceAddress out) const {
  Picture told = picture;
  void* arguments[] = {&told, &from, &rows, &columns, &out};
  const unsigned across = (static_cast<unsigned>(picture.columns) + kThreads - 1) / kThreads;
  launch(run, picture_, across, static_cast<unsigned>(picture.rows), static_cast<unsigned>(picture.channels),
         arguments, "launching mmedge_picture");
}

void Kernels::dense(const GraphRun& run, DeviceAddress in, DeviceAddress weights, DeviceAddress bias,
                    std::int32_t inputs, std::int32_t outputs, bool relu, DeviceAddress out) const {
  float least = relu ? 0.0f : -std::numeric_limits<float>::infinity();
  void* arguments[] = {&in, &weights, &bias, &inputs, &least, &out};
  launch(run, dense_, static_cast<unsigned>(outputs), 1, 1, arguments, "launching mmedge_dense");
}

}  // namespace mmedge::cuda
