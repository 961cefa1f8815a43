// Our declarations of CUDA's driver are those of cuda.h: where that is installed, this does not compile
// otherwise.
#include "cuda/driver_api.hpp"

#if __has_include(<cuda.h>)
#include <cuda.h>

#include <type_traits>

namespace {

using namespace mmedge::cuda;

// Enumerations are numbers of 4 bytes to us.
template <typename T>
using Plain = std::conditional_t<std::is_enum_v<T>, int, T>;

template <typename Function>
struct Signature;
template <typename Result, typename... Arguments>
struct Signature<Result (*)(Arguments...)> {
  static_assert(((!std::is_enum_v<Arguments> || sizeof(Arguments) == sizeof(int)) && ...));
  using Type = Plain<Result>(Plain<Arguments>...);
};

#define MMEDGE_CUDA_SAME(name, arguments) \
  static_assert(std::is_same_v<Signature<decltype(&name)>::Type, int arguments>, #name);
MMEDGE_CUDA_FUNCTIONS(MMEDGE_CUDA_SAME)

#if CUDA_VERSION >= 12050
// Their structure is ours by another name: its layout is compared, and pointers to it are one pointer.
template <typename T>
using Named = std::conditional_t<
    std::is_same_v<T, CUdevResource*>, DevResource*,
    std::conditional_t<std::is_same_v<T, const CUdevResource*>, const DevResource*, Plain<T>>>;
template <typename Function>
struct GreenSignature;
template <typename... Arguments>
struct GreenSignature<CUresult (*)(Arguments...)> {
  using Type = int(Named<Arguments>...);
};
#define MMEDGE_CUDA_GREEN_SAME(name, arguments) \
  static_assert(std::is_same_v<GreenSignature<decltype(&name)>::Type, int arguments>, #name);
MMEDGE_CUDA_GREEN_FUNCTIONS(MMEDGE_CUDA_GREEN_SAME)
#if CUDA_VERSION < 13010  // later headers have another form, with functions of another name
static_assert(sizeof(DevResource) == sizeof(CUdevResource));
#endif
static_assert(offsetof(DevResource, sm) == offsetof(CUdevResource, sm));
static_assert(offsetof(SmResource, count) == offsetof(CUdevSmResource, smCount));
static_assert(kSmResource == CU_DEV_RESOURCE_TYPE_SM && kGreenDefaultStream == CU_GREEN_CTX_DEFAULT_STREAM);
#endif

static_assert(kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY && kNotReady == CUDA_ERROR_NOT_READY);
static_assert(kNotInitialized == CUDA_ERROR_NOT_INITIALIZED && kNoDevice == CUDA_ERROR_NO_DEVICE);
static_assert(kNoBinaryForGpu == CUDA_ERROR_NO_BINARY_FOR_GPU && kStubLibrary == CUDA_ERROR_STUB_LIBRARY);
static_assert(kUnsupportedPtx == CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
static_assert(kFirstFault == CUDA_ERROR_ILLEGAL_ADDRESS && kLastFault == CUDA_ERROR_LAUNCH_FAILED);
static_assert(kIntegrated == CU_DEVICE_ATTRIBUTE_INTEGRATED);
static_assert(kComputeMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kComputeMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kPortable == CU_MEMHOSTALLOC_PORTABLE && kDeviceMap == CU_MEMHOSTALLOC_DEVICEMAP);
static_assert(kNonBlocking == CU_STREAM_NON_BLOCKING && kBlockingSync == CU_EVENT_BLOCKING_SYNC);
static_assert(kDisableTiming == CU_EVENT_DISABLE_TIMING);
static_assert(kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);

}  // namespace
#endif

int main() {}
