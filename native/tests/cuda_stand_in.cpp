#include "cuda_stand_in.hpp"

#include "cuda_stand_in_state.hpp"

using namespace cuda_stand_in;

CUDA_CALL void stand_in_fail(int n, int error) {
  LOCKED;
  state().calls = 0, state().fail_at = n, state().error = error;
}
CUDA_CALL const char* stand_in_failed() { return state().failed; }
CUDA_CALL int stand_in_calls() { return state().calls; }
CUDA_CALL std::size_t stand_in_live() {
  return state().live.size() + static_cast<std::size_t>(state().retained);
}
CUDA_CALL int stand_in_launches() { return state().launches; }
CUDA_CALL int stand_in_kernels() { return state().kernels; }
CUDA_CALL int stand_in_copies() { return state().copies; }
CUDA_CALL unsigned stand_in_sms(void* stream) {
  LOCKED;
  const auto found = state().sms.find(stream);
  return found == state().sms.end() ? kSms : found->second;
}
CUDA_CALL void stand_in_busy(int queries) { state().busy = queries; }

CUDA_CALL int cuGetErrorName(int error, const char** name) {
  *name = error == mmedge::cuda::kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_THE_STAND_IN";
  return 0;
}
CUDA_CALL int cuGetErrorString(int error, const char** text) {
  *text = error == mmedge::cuda::kOutOfMemory ? "out of memory" : "an error of the stand-in";
  return 0;
}
CUDA_CALL int cuInit(unsigned) {
  BEGIN_WITHOUT_CONTEXT;
  return 0;
}
CUDA_CALL int cuDriverGetVersion(int* version) {
  BEGIN_WITHOUT_CONTEXT;
  *version = 13000;
  return 0;
}
CUDA_CALL int cuDeviceGetCount(int* count) {
  BEGIN_WITHOUT_CONTEXT;
  *count = 1;
  return 0;
}
CUDA_CALL int cuDeviceGet(int* device, int ordinal) {
  BEGIN_WITHOUT_CONTEXT;
  *device = ordinal;
  return ordinal == 0 ? 0 : 101;
}
CUDA_CALL int cuDeviceGetName(char* name, int bytes, int) {
  BEGIN_WITHOUT_CONTEXT;
  std::strncpy(name, "stand-in", static_cast<std::size_t>(bytes));
  return 0;
}
CUDA_CALL int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  BEGIN_WITHOUT_CONTEXT;
  *bytes = std::size_t{8} << 30;
  return 0;
}
CUDA_CALL int cuDeviceGetAttribute(int* value, int attribute, int) {
  BEGIN_WITHOUT_CONTEXT;
  *value = attribute == mmedge::cuda::kComputeMajor ? 8 : attribute == mmedge::cuda::kComputeMinor ? 7 : 0;
  return 0;
}
CUDA_CALL int cuDevicePrimaryCtxRetain(CUctx_st** context, int) {
  BEGIN_WITHOUT_CONTEXT;
  *context = kPrimary;
  ++state().retained;
  return 0;
}
CUDA_CALL int cuDevicePrimaryCtxRelease_v2(int) {
  BEGIN_WITHOUT_CONTEXT;
  if (state().retained-- == 0) die(__func__, "more often than it was retained");
  return 0;
}
CUDA_CALL int cuCtxPushCurrent_v2(CUctx_st* context) {
  BEGIN_WITHOUT_CONTEXT;
  if (context != kPrimary || state().retained == 0) die(__func__, "a context that is not retained");
  contexts.push_back(context);
  return 0;
}
CUDA_CALL int cuCtxPopCurrent_v2(CUctx_st** context) {
  if (contexts.empty()) die(__func__, "without a context");
  *context = contexts.back();
  contexts.pop_back();
  return 0;
}
CUDA_CALL int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  BEGIN;
  *total = std::size_t{8} << 30, *free = *total;
  for (const auto& each : state().bytes) *free -= each.second;
  return 0;
}
CUDA_CALL int cuMemHostAlloc(void** host, std::size_t bytes, unsigned) {
  BEGIN;
  return allocate(host, bytes, "host");
}
CUDA_CALL int cuMemHostGetDevicePointer_v2(DeviceAddress* device, void* host, unsigned) {
  BEGIN;
  need(__func__, host, "host");
  *device = reinterpret_cast<std::uintptr_t>(host);
  return 0;
}
CUDA_CALL int cuMemFreeHost(void* host) {
  BEGIN;
  return release(__func__, host, "host");
}
CUDA_CALL int cuMemAlloc_v2(DeviceAddress* device, std::size_t bytes) {
  BEGIN;
  void* data = nullptr;
  const int result = allocate(&data, bytes, "device");
  *device = reinterpret_cast<std::uintptr_t>(data);
  return result;
}
CUDA_CALL int cuMemFree_v2(DeviceAddress device) {
  BEGIN;
  return release(__func__, pointer(device), "device");
}
CUDA_CALL int cuMemsetD8_v2(DeviceAddress device, unsigned char value, std::size_t bytes) {
  BEGIN;
  need_range(__func__, pointer(device), bytes);
  std::memset(pointer(device), value, bytes);
  return 0;
}
CUDA_CALL int cuMemcpyHtoD_v2(DeviceAddress to, const void* from, std::size_t bytes) {
  BEGIN;
  need_range(__func__, pointer(to), bytes);
  std::memcpy(pointer(to), from, bytes);
  return 0;
}
CUDA_CALL int cuMemcpyHtoDAsync_v2(DeviceAddress to, const void* from, std::size_t bytes,
                                   CUstream_st* stream) {
  BEGIN;
  return copy(__func__, pointer(to), from, bytes, stream);
}
CUDA_CALL int cuMemcpyDtoHAsync_v2(void* to, DeviceAddress from, std::size_t bytes, CUstream_st* stream) {
  BEGIN;
  return copy(__func__, to, pointer(from), bytes, stream);
}
CUDA_CALL int cuStreamCreate(CUstream_st** stream, unsigned) {
  BEGIN;
  *stream = static_cast<CUstream_st*>(make("stream"));
  return 0;
}
CUDA_CALL int cuStreamDestroy_v2(CUstream_st* stream) {
  BEGIN;
  if (state().recording.count(stream) != 0) die(__func__, "a stream that is recorded");
  take(__func__, stream, "stream");
  state().green.erase(stream), state().sms.erase(stream);
  return 0;
}
CUDA_CALL int cuStreamSynchronize(CUstream_st* stream) {
  BEGIN;
  need(__func__, stream, "stream");
  if (state().recording.count(stream) != 0) die(__func__, "a stream that is recorded");
  return 0;
}
CUDA_CALL int cuStreamBeginCapture_v2(CUstream_st* stream, int) {
  BEGIN;
  need(__func__, stream, "stream");
  if (!state().recording.emplace(stream, std::make_shared<Operations>()).second) die(__func__, "twice");
  return 0;
}
CUDA_CALL int cuStreamEndCapture(CUstream_st* stream, CUgraph_st** graph) {
  LOCKED;
  const int error = begin(__func__, true);
  need(__func__, stream, "stream");
  const auto found = state().recording.find(stream);
  if (found == state().recording.end()) die(__func__, "a stream that is not recorded");
  const auto recorded = found->second;
  state().recording.erase(found);  // also where it fails
  *graph = nullptr;
  if (error != 0) return error;
  *graph = static_cast<CUgraph_st*>(make("graph"));
  state().graphs[*graph] = recorded;
  return 0;
}
CUDA_CALL int cuEventCreate(CUevent_st** event, unsigned) {
  BEGIN;
  *event = static_cast<CUevent_st*>(make("event"));
  return 0;
}
CUDA_CALL int cuEventDestroy_v2(CUevent_st* event) {
  BEGIN;
  take(__func__, event, "event");
  state().recorded.erase(event);
  return 0;
}
CUDA_CALL int cuEventRecord(CUevent_st* event, CUstream_st* stream) {
  BEGIN;
  need(__func__, event, "event"), need(__func__, stream, "stream");
  state().recorded.insert(event);
  state().pending[event] = state().busy;
  return 0;
}
CUDA_CALL int cuEventQuery(CUevent_st* event) {
  BEGIN;
  need(__func__, event, "event");
  if (state().recorded.count(event) == 0) die(__func__, "an event that was not recorded");
  return state().pending[event]-- > 0 ? mmedge::cuda::kNotReady : 0;
}
CUDA_CALL int cuEventSynchronize(CUevent_st* event) {
  BEGIN;
  need(__func__, event, "event");
  state().pending[event] = 0;
  return 0;
}
CUDA_CALL int cuGraphInstantiateWithFlags(CUgraphExec_st** exec, CUgraph_st* graph, unsigned long long) {
  BEGIN;
  need(__func__, graph, "graph");
  *exec = static_cast<CUgraphExec_st*>(make("exec"));
  state().graphs[*exec] = state().graphs[graph];
  return 0;
}
CUDA_CALL int cuGraphDestroy(CUgraph_st* graph) {
  BEGIN;
  take(__func__, graph, "graph");
  state().graphs.erase(graph);
  return 0;
}
CUDA_CALL int cuGraphExecDestroy(CUgraphExec_st* exec) {
  BEGIN;
  take(__func__, exec, "exec");
  state().graphs.erase(exec);
  return 0;
}
CUDA_CALL int cuGraphLaunch(CUgraphExec_st* exec, CUstream_st* stream) {
  BEGIN;
  need(__func__, exec, "exec"), need(__func__, stream, "stream");
  ++state().launches;
  for (const Operation& operation : *state().graphs[exec]) operation.act();
  return 0;
}
CUDA_CALL int cuModuleLoadData(CUmod_st** module, const void* image) {
  BEGIN;
  if (image == nullptr) die(__func__, "no image");
  *module = static_cast<CUmod_st*>(make("module"));
  return 0;
}
CUDA_CALL int cuModuleUnload(CUmod_st* module) {
  BEGIN;
  take(__func__, module, "module");
  return 0;
}
CUDA_CALL int cuModuleGetFunction(CUfunc_st** function, CUmod_st* module, const char*) {
  BEGIN;
  need(__func__, module, "module");
  *function = reinterpret_cast<CUfunc_st*>(module);
  return 0;
}
CUDA_CALL int cuLaunchKernel(CUfunc_st* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned, unsigned, unsigned, CUstream_st* stream,
                             void** arguments, void**) {
  BEGIN;
  need(__func__, function, "module"), need(__func__, stream, "stream");
  if (grid_x * grid_y * grid_z == 0 || block_x == 0 || block_x > 1024 || arguments == nullptr)
    return kBadValue;
  enqueue(stream, {true, [function] {
                     need("cuGraphLaunch", function, "module");  // what it launches is still loaded
                     ++state().kernels;
                   }});
  return 0;
}
