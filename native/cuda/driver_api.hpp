// The functions of CUDA's driver that mmedge calls, declared here so that no CUDA is needed to build it.
// native/tests/test_cuda_header.cpp holds them against cuda.h where that is installed.
#pragma once

#include <cstddef>

// The driver's own opaque types.
struct CUctx_st;
struct CUmod_st;
struct CUfunc_st;
struct CUstream_st;
struct CUevent_st;
struct CUgraph_st;
struct CUgraphExec_st;
struct CUgreenCtx_st;
struct CUdevResourceDesc_st;

namespace mmedge::cuda {

using DeviceAddress = unsigned long long;  // CUdeviceptr

// Results and flags, by their numbers in cuda.h.
constexpr int kOutOfMemory = 2, kNotInitialized = 3, kNoDevice = 100, kNoBinaryForGpu = 209, kNotReady = 600;
constexpr int kUnsupportedPtx = 222, kFirstFault = 700, kLastFault = 719;  // an illegal address, and the like
constexpr int kStubLibrary = 34;
constexpr int kIntegrated = 18, kComputeMajor = 75, kComputeMinor = 76;  // attributes of a device
constexpr unsigned kPortable = 1, kDeviceMap = 2;                        // of host memory
constexpr unsigned kNonBlocking = 1;                                     // of a stream
constexpr unsigned kBlockingSync = 1, kDisableTiming = 2;                // of an event
constexpr int kCaptureThreadLocal = 1;
constexpr int kSmResource = 1;               // a kind of CUdevResource
constexpr unsigned kGreenDefaultStream = 1;  // which cuGreenCtxCreate requires

// CUdevResource in the form that these functions have had since CUDA 12.5.
struct SmResource {
  unsigned count, least_part, alignment;
};
struct DevResource {
  int type;
  unsigned char reserved[92];
  union {
    SmResource sm;
    unsigned char other[48];
  };
};

// Newer versions of a function have a name of their own, which cuda.h hides behind a macro.
#define MMEDGE_CUDA_FUNCTIONS(X)                                                                         \
  X(cuInit, (unsigned flags))                                                                            \
  X(cuDriverGetVersion, (int* version))                                                                  \
  X(cuGetErrorName, (int error, const char** name))                                                      \
  X(cuGetErrorString, (int error, const char** text))                                                    \
  X(cuDeviceGetCount, (int* count))                                                                      \
  X(cuDeviceGet, (int* device, int ordinal))                                                             \
  X(cuDeviceGetName, (char* name, int bytes, int device))                                                \
  X(cuDeviceTotalMem_v2, (std::size_t* bytes, int device))                                               \
  X(cuDeviceGetAttribute, (int* value, int attribute, int device))                                       \
  X(cuDevicePrimaryCtxRetain, (CUctx_st * *context, int device))                                         \
  X(cuDevicePrimaryCtxRelease_v2, (int device))                                                          \
  X(cuCtxPushCurrent_v2, (CUctx_st * context))                                                           \
  X(cuCtxPopCurrent_v2, (CUctx_st * *context))                                                           \
  X(cuMemGetInfo_v2, (std::size_t* free, std::size_t* total))                                            \
  X(cuMemHostAlloc, (void** host, std::size_t bytes, unsigned flags))                                    \
  X(cuMemHostGetDevicePointer_v2, (DeviceAddress * device, void* host, unsigned flags))                  \
  X(cuMemFreeHost, (void* host))                                                                         \
  X(cuMemAlloc_v2, (DeviceAddress * device, std::size_t bytes))                                          \
  X(cuMemFree_v2, (DeviceAddress device))                                                                \
  X(cuMemsetD8_v2, (DeviceAddress device, unsigned char value, std::size_t bytes))                       \
  X(cuMemcpyHtoD_v2, (DeviceAddress to, const void* from, std::size_t bytes))                            \
  X(cuMemcpyHtoDAsync_v2, (DeviceAddress to, const void* from, std::size_t bytes, CUstream_st* stream))  \
  X(cuMemcpyDtoHAsync_v2, (void* to, DeviceAddress from, std::size_t bytes, CUstream_st* stream))        \
  X(cuStreamCreate, (CUstream_st * *stream, unsigned flags))                                             \
  X(cuStreamDestroy_v2, (CUstream_st * stream))                                                          \
  X(cuStreamSynchronize, (CUstream_st * stream))                                                         \
  X(cuStreamBeginCapture_v2, (CUstream_st * stream, int mode))                                           \
  X(cuStreamEndCapture, (CUstream_st * stream, CUgraph_st * *graph))                                     \
  X(cuEventCreate, (CUevent_st * *event, unsigned flags))                                                \
  X(cuEventDestroy_v2, (CUevent_st * event))                                                             \
  X(cuEventRecord, (CUevent_st * event, CUstream_st * stream))                                           \
  X(cuEventQuery, (CUevent_st * event))                                                                  \
  X(cuEventSynchronize, (CUevent_st * event))                                                            \
  X(cuGraphInstantiateWithFlags, (CUgraphExec_st * *exec, CUgraph_st * graph, unsigned long long flags)) \
  X(cuGraphDestroy, (CUgraph_st * graph))                                                                \
  X(cuGraphExecDestroy, (CUgraphExec_st * exec))                                                         \
  X(cuGraphLaunch, (CUgraphExec_st * exec, CUstream_st * stream))                                        \
  X(cuModuleLoadData, (CUmod_st * *module, const void* image))                                           \
  X(cuModuleUnload, (CUmod_st * module))                                                                 \
  X(cuModuleGetFunction, (CUfunc_st * *function, CUmod_st * module, const char* name))                   \
  X(cuLaunchKernel, (CUfunc_st * function, unsigned grid_x, unsigned grid_y, unsigned grid_z,            \
                     unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,        \
                     CUstream_st* stream, void** arguments, void** extra))

// What drivers of CUDA 12.5 and later have besides: parts of a GPU.
#define MMEDGE_CUDA_GREEN_FUNCTIONS(X)                                                              \
  X(cuDeviceGetDevResource, (int device, DevResource* resource, int type))                          \
  X(cuDevSmResourceSplitByCount, (DevResource * result, unsigned* groups, const DevResource* input, \
                                  DevResource* remaining, unsigned flags, unsigned least))          \
  X(cuDevResourceGenerateDesc,                                                                      \
    (CUdevResourceDesc_st * *description, DevResource * resources, unsigned count))                 \
  X(cuGreenCtxCreate,                                                                               \
    (CUgreenCtx_st * *context, CUdevResourceDesc_st * description, int device, unsigned flags))     \
  X(cuGreenCtxDestroy, (CUgreenCtx_st * context))                                                   \
  X(cuGreenCtxStreamCreate, (CUstream_st * *stream, CUgreenCtx_st * context, unsigned flags, int priority))

}  // namespace mmedge::cuda
