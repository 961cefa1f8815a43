#include "cuda_stand_in.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cuda/driver_api.hpp"

// Exported by their own names, as the driver does.
#define CUDA_CALL extern "C" __attribute__((visibility("default")))

namespace {

using mmedge::cuda::DeviceAddress;

constexpr int kBadHandle = 400, kBadValue = 1;

struct Operation {
  bool kernel;
  std::function<void()> act;
};
using Operations = std::vector<Operation>;

struct State {
  std::mutex mutex;
  int calls = 0, fail_at = -1, error = 0;
  const char* failed = "";
  int launches = 0, kernels = 0, copies = 0, busy = 0;
  std::map<void*, std::string> live;   // handle or memory -> its kind
  std::map<void*, std::size_t> bytes;  // of memory
  std::map<void*, std::shared_ptr<Operations>> recording,
      graphs;                    // of a stream; of a graph or its executable
  std::map<void*, int> pending;  // queries of an event that still say "not ready"
  std::set<void*> recorded;      // events
  int retained = 0;
  std::uintptr_t next = 0x1000;
};
State& state() {
  static State& one = *new State;  // outlives whoever still calls at the end
  return one;
}
thread_local std::vector<CUctx_st*> contexts;
CUctx_st* const kPrimary = reinterpret_cast<CUctx_st*>(std::uintptr_t{0x100});

void die(const char* call, const char* reason) {
  std::fprintf(stderr, "%s: %s\n", call, reason);
  std::abort();
}

// Counts a call; its result is that of the call, if not 0.
int begin(const char* call, bool needs_context = true) {
  State& s = state();
  if (needs_context && contexts.empty()) die(call, "without a context");
  if (s.calls++ != s.fail_at) return 0;
  s.failed = call;
  return s.error;
}

void* make(const char* kind) {
  State& s = state();
  void* const handle = reinterpret_cast<void*>(s.next += 16);
  s.live[handle] = kind;
  return handle;
}

void need(const char* call, void* handle, const char* kind) {
  const auto found = state().live.find(handle);
  if (found == state().live.end()) die(call, "an unknown or freed handle");
  if (found->second != kind) die(call, "a handle of another kind");
}

void take(const char* call, void* handle, const char* kind) {
  need(call, handle, kind);
  state().live.erase(handle);
}

// Memory that holds [at, at + bytes): GPU addresses are pointers here.
void need_range(const char* call, const void* at, std::size_t bytes) {
  const auto* const begin = static_cast<const char*>(at);
  for (const auto& [data, size] : state().bytes)
    if (begin >= static_cast<char*>(data) && begin + bytes <= static_cast<char*>(data) + size) return;
  die(call, "memory that is not, or no longer, allocated");
}

void* pointer(DeviceAddress address) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)); }

// Does it now, or records it where the stream is recorded.
void enqueue(CUstream_st* stream, Operation operation) {
  State& s = state();
  const auto found = s.recording.find(stream);
  if (found != s.recording.end())
    found->second->push_back(std::move(operation));
  else
    operation.act();
}

int copy(const char* call, void* to, const void* from, std::size_t bytes, CUstream_st* stream) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (const int error = begin(call)) return error;
  need(call, stream, "stream");
  const auto act = [=] {
    need_range(call, to, bytes), need_range(call, from, bytes);
    std::memcpy(to, from, bytes);
    ++state().copies;
  };
  enqueue(stream, {false, act});
  return 0;
}

int allocate(const char* call, void** to, std::size_t bytes, const char* kind) {
  if (const int error = begin(call)) return error;
  if (bytes == 0) return kBadValue;
  *to = std::malloc(bytes);
  std::memset(*to, 0xa5, bytes);  // not zeros
  state().live[*to] = kind, state().bytes[*to] = bytes;
  return 0;
}

int release(const char* call, void* data, const char* kind) {
  if (const int error = begin(call)) return error;
  take(call, data, kind);
  state().bytes.erase(data);
  std::free(data);
  return 0;
}

}  // namespace

#define LOCKED const std::lock_guard<std::mutex> lock(state().mutex)
#define BEGIN \
  LOCKED;     \
  if (const int error = begin(__func__)) return error

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
  LOCKED;
  return begin(__func__, false);
}
CUDA_CALL int cuDriverGetVersion(int* version) {
  LOCKED;
  *version = 13000;
  return begin(__func__, false);
}
CUDA_CALL int cuDeviceGetCount(int* count) {
  LOCKED;
  *count = 1;
  return begin(__func__, false);
}
CUDA_CALL int cuDeviceGet(int* device, int ordinal) {
  LOCKED;
  *device = ordinal;
  const int error = begin(__func__, false);
  return error != 0 ? error : ordinal == 0 ? 0 : 101;
}
CUDA_CALL int cuDeviceGetName(char* name, int bytes, int) {
  LOCKED;
  std::strncpy(name, "stand-in", static_cast<std::size_t>(bytes));
  return begin(__func__, false);
}
CUDA_CALL int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  LOCKED;
  *bytes = std::size_t{8} << 30;
  return begin(__func__, false);
}
CUDA_CALL int cuDeviceGetAttribute(int* value, int attribute, int) {
  LOCKED;
  *value = attribute == mmedge::cuda::kComputeMajor ? 8 : attribute == mmedge::cuda::kComputeMinor ? 7 : 0;
  return begin(__func__, false);
}
CUDA_CALL int cuDevicePrimaryCtxRetain(CUctx_st** context, int) {
  LOCKED;
  if (const int error = begin(__func__, false)) return error;
  *context = kPrimary;
  ++state().retained;
  return 0;
}
CUDA_CALL int cuDevicePrimaryCtxRelease_v2(int) {
  LOCKED;
  if (const int error = begin(__func__, false)) return error;
  if (state().retained-- == 0) die(__func__, "more often than it was retained");
  return 0;
}
CUDA_CALL int cuCtxPushCurrent_v2(CUctx_st* context) {
  LOCKED;
  if (const int error = begin(__func__, false)) return error;
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
  LOCKED;
  return allocate(__func__, host, bytes, "host");
}
CUDA_CALL int cuMemHostGetDevicePointer_v2(DeviceAddress* device, void* host, unsigned) {
  BEGIN;
  need(__func__, host, "host");
  *device = reinterpret_cast<std::uintptr_t>(host);
  return 0;
}
CUDA_CALL int cuMemFreeHost(void* host) {
  LOCKED;
  return release(__func__, host, "host");
}
CUDA_CALL int cuMemAlloc_v2(DeviceAddress* device, std::size_t bytes) {
  LOCKED;
  void* data = nullptr;
  const int error = allocate(__func__, &data, bytes, "device");
  *device = reinterpret_cast<std::uintptr_t>(data);
  return error;
}
CUDA_CALL int cuMemFree_v2(DeviceAddress device) {
  LOCKED;
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
  return copy(__func__, pointer(to), from, bytes, stream);
}
CUDA_CALL int cuMemcpyDtoHAsync_v2(void* to, DeviceAddress from, std::size_t bytes, CUstream_st* stream) {
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
  const int error = begin(__func__);
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
