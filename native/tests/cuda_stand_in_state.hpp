// What the calls of the stand-in share: what is alive, and what is counted and failed. Nothing else includes
// it.
#pragma once

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

namespace cuda_stand_in {

using mmedge::cuda::DeviceAddress;

constexpr int kBadValue = 1, kBadResource = 914;
constexpr unsigned kSms = 16, kLeastPart = 4, kAlignment = 2;

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
      graphs;                     // of a stream; of a graph or its executable
  std::map<void*, int> pending;   // queries of an event that still say "not ready"
  std::set<void*> recorded;       // events
  std::map<void*, unsigned> sms;  // of a description, a green context, or a stream of one
  std::map<void*, void*> green;   // of a stream
  int retained = 0;
  std::uintptr_t next = 0x1000;
};
inline State& state() {
  static State& one = *new State;  // outlives whoever still calls at the end
  return one;
}
inline thread_local std::vector<CUctx_st*> contexts;
inline CUctx_st* const kPrimary = reinterpret_cast<CUctx_st*>(std::uintptr_t{0x100});

inline void die(const char* call, const char* reason) {
  std::fprintf(stderr, "%s: %s\n", call, reason);
  std::abort();
}

// Counts a call; its result is that of the call, if not 0.
inline int begin(const char* call, bool needs_context) {
  State& s = state();
  if (needs_context && contexts.empty()) die(call, "without a context");
  if (s.calls++ != s.fail_at) return 0;
  s.failed = call;
  return s.error;
}

inline void* make(const char* kind) {
  State& s = state();
  void* const handle = reinterpret_cast<void*>(s.next += 16);
  s.live[handle] = kind;
  return handle;
}

inline void need(const char* call, void* handle, const char* kind) {
  const auto found = state().live.find(handle);
  if (found == state().live.end()) die(call, "an unknown or freed handle");
  if (found->second != kind) die(call, "a handle of another kind");
}

inline void take(const char* call, void* handle, const char* kind) {
  need(call, handle, kind);
  state().live.erase(handle);
}

// Memory that holds [at, at + bytes): GPU addresses are pointers here.
inline void need_range(const char* call, const void* at, std::size_t bytes) {
  const auto* const begin = static_cast<const char*>(at);
  for (const auto& [data, size] : state().bytes)
    if (begin >= static_cast<char*>(data) && begin + bytes <= static_cast<char*>(data) + size) return;
  die(call, "memory that is not, or no longer, allocated");
}

inline void* pointer(DeviceAddress address) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

// Does it now, or records it where the stream is recorded.
inline void enqueue(CUstream_st* stream, Operation operation) {
  State& s = state();
  const auto found = s.recording.find(stream);
  if (found != s.recording.end())
    found->second->push_back(std::move(operation));
  else
    operation.act();
}

inline int copy(const char* call, void* to, const void* from, std::size_t bytes, CUstream_st* stream) {
  need(call, stream, "stream");
  const auto act = [=] {
    need_range(call, to, bytes), need_range(call, from, bytes);
    std::memcpy(to, from, bytes);
    ++state().copies;
  };
  enqueue(stream, {false, act});
  return 0;
}

inline int allocate(void** to, std::size_t bytes, const char* kind) {
  if (bytes == 0) return kBadValue;
  *to = std::malloc(bytes);
  std::memset(*to, 0xa5, bytes);  // not zeros
  state().live[*to] = kind, state().bytes[*to] = bytes;
  return 0;
}

inline int release(const char* call, void* data, const char* kind) {
  take(call, data, kind);
  state().bytes.erase(data);
  std::free(data);
  return 0;
}

}  // namespace cuda_stand_in

#define LOCKED const std::lock_guard<std::mutex> lock(state().mutex)
// One call at a time, counted, and failed where that was asked for; BEGIN: in a context.
#define BEGIN_CALL(needs_context) \
  LOCKED;                         \
  if (const int error = begin(__func__, needs_context)) return error
#define BEGIN BEGIN_CALL(true)
#define BEGIN_WITHOUT_CONTEXT BEGIN_CALL(false)
