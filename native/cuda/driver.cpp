#include "cuda/driver.hpp"

#include <dlfcn.h>

namespace mmedge::cuda {
namespace {

const char* fix_of(int code) {
  if (code == kOutOfMemory) return "free GPU memory: close other engines, or use smaller inputs";
  if (code == kNoDevice)
    return "look whether the GPU is passed into this container: `nvidia-smi`, --gpus all";
  if (code == kStubLibrary) return "take CUDA's `stubs` folder out of LD_LIBRARY_PATH: it holds no driver";
  if (code == kNoBinaryForGpu || code == kUnsupportedPtx)
    return "build mmedge again with the nvcc of this machine's CUDA: pip install -e .";
  if (code >= kFirstFault && code <= kLastFault)
    return "restart the process: the GPU's context is lost; if it comes again, report it";
  return "run `mmedge doctor`, and look for NVRM or nvgpu in the kernel's log (dmesg)";
}

}  // namespace

const Driver& Driver::get() {
  static const Driver driver;  // tried again where it throws
  return driver;
}

Driver::Driver() {
  // Never closed: memory that outlives every engine is freed through it.
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw CudaError("no NVIDIA driver is loaded", 0,
                    "install the NVIDIA driver, or pass it into the container (--gpus all)");
#define MMEDGE_CUDA_LOAD(name, arguments)                                          \
  name = reinterpret_cast<decltype(name)>(dlsym(library, #name));                  \
  if (name == nullptr)                                                             \
    throw CudaError("the NVIDIA driver is too old: libcuda.so.1 has no " #name, 0, \
                    "install a driver of CUDA 11.4 or later (JetPack 6, Linux 470)");
  MMEDGE_CUDA_FUNCTIONS(MMEDGE_CUDA_LOAD)
#undef MMEDGE_CUDA_LOAD
#define MMEDGE_CUDA_LOAD_GREEN(name, arguments) \
  name = reinterpret_cast<decltype(name)>(dlsym(library, #name));
  MMEDGE_CUDA_GREEN_FUNCTIONS(MMEDGE_CUDA_LOAD_GREEN)
#undef MMEDGE_CUDA_LOAD_GREEN
  check(cuInit(0), "cuInit");
}

void Driver::require_green() const {
#define MMEDGE_CUDA_MISSING(name, arguments)                                                  \
  if (name == nullptr)                                                                        \
    throw CudaError("the NVIDIA driver has no green contexts: libcuda.so.1 has no " #name, 0, \
                    "install a driver of CUDA 12.5 or later (JetPack 6.1), or reserve no SMs");
  MMEDGE_CUDA_GREEN_FUNCTIONS(MMEDGE_CUDA_MISSING)
#undef MMEDGE_CUDA_MISSING
}

void Driver::check(int result, const std::string& what) const {
  if (result == 0) return;
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(result, &name);  // leaves them as they are if it does not know the number
  cuGetErrorString(result, &text);
  throw CudaError(what + " failed: " + (text != nullptr ? text : "unknown error") + " (" +
                      (name != nullptr ? name : "CUDA error") + ", " + std::to_string(result) + ")",
                  result, fix_of(result));
}

}  // namespace mmedge::cuda
