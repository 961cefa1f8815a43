#include "cuda/graph_run.hpp"

#include <chrono>
#include <thread>
#include <utility>

namespace mmedge::cuda {
namespace {

// So long a wait asks again and again, then the thread sleeps. A sleeper wakes 30 to 50 us late, which is
// little of a run that takes a millisecond, and much of a shorter one; at 30 runs a second it costs 3 % of a
// core at most.
constexpr std::chrono::milliseconds kAsking{1};

}  // namespace

GraphRun::GraphRun(std::shared_ptr<Device> device, std::string name, std::shared_ptr<SmShare> share,
                   bool reserved)
    : device_(std::move(device)),
      share_(std::move(share)),
      driver_(device_->driver()),
      name_(std::move(name)) {
  const Current current(*device_);
  if (share_ != nullptr)
    stream_ = share_->stream(reserved);
  else
    driver_.check(driver_.cuStreamCreate(&stream_, kNonBlocking), "cuStreamCreate");
  try {
    driver_.check(driver_.cuEventCreate(&done_, kBlockingSync | kDisableTiming), "cuEventCreate");
  } catch (...) {
    driver_.cuStreamDestroy_v2(stream_);
    throw;
  }
}

GraphRun::~GraphRun() {
  try {
    close();
  } catch (const CudaError&) {  // whoever wants to know calls close
  }
}

void GraphRun::require_open() const {
  if (stream_ == nullptr) throw CudaError("'" + name_ + "' is closed", 0, "load the engine again");
}

void GraphRun::upload(DeviceAddress to, const void* from, std::size_t bytes) {
  require_open();
  const Current current(*device_);
  driver_.check(driver_.cuMemcpyHtoDAsync_v2(to, from, bytes, stream_), "cuMemcpyHtoDAsync");
}

void GraphRun::download(void* to, DeviceAddress from, std::size_t bytes) {
  require_open();
  const Current current(*device_);
  driver_.check(driver_.cuMemcpyDtoHAsync_v2(to, from, bytes, stream_), "cuMemcpyDtoHAsync");
}

void GraphRun::wait() {
  require_open();
  const Current current(*device_);
  driver_.check(driver_.cuStreamSynchronize(stream_), "running '" + name_ + "'");
}

void GraphRun::capture(const std::function<void()>& enqueue) {
  const std::lock_guard<std::mutex> lock(turn_);
  require_open();
  const Current current(*device_);
  drop_graph();
  // Of this thread alone: what other threads call meanwhile is theirs.
  driver_.check(driver_.cuStreamBeginCapture_v2(stream_, kCaptureThreadLocal), "cuStreamBeginCapture");
  CUgraph_st* graph = nullptr;
  try {
    enqueue();
  } catch (...) {
    // Ended in any case, or the stream could never be used again.
    driver_.cuStreamEndCapture(stream_, &graph);
    if (graph != nullptr) driver_.cuGraphDestroy(graph);
    throw;
  }
  const int ended = driver_.cuStreamEndCapture(stream_, &graph);
  int made = 0;
  if (ended == 0) made = driver_.cuGraphInstantiateWithFlags(&exec_, graph, 0);
  if (made != 0) exec_ = nullptr;
  if (graph != nullptr) driver_.cuGraphDestroy(graph);
  driver_.check(ended, "cuStreamEndCapture");
  driver_.check(made, "cuGraphInstantiate");
}

void GraphRun::run() {
  const std::lock_guard<std::mutex> lock(turn_);
  if (exec_ == nullptr)
    throw CudaError("'" + name_ + "' has no CUDA graph: it is closed, or none was recorded", 0,
                    "load the engine again");
  const Current current(*device_);
  driver_.check(driver_.cuGraphLaunch(exec_, stream_), "launching '" + name_ + "'");
  driver_.check(driver_.cuEventRecord(done_, stream_), "cuEventRecord");
  wait_for_event();
}

void GraphRun::wait_for_event() {
  const auto until = std::chrono::steady_clock::now() + kAsking;
  int result = driver_.cuEventQuery(done_);
  while (result == kNotReady && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
    result = driver_.cuEventQuery(done_);
  }
  if (result == kNotReady) result = driver_.cuEventSynchronize(done_);
  driver_.check(result, "running '" + name_ + "'");
}

void GraphRun::drop_graph() {
  if (exec_ == nullptr) return;
  // Waits for a run that failed half-way, so that nothing writes into memory that is freed after this.
  const int waited = driver_.cuStreamSynchronize(stream_);
  const int destroyed = driver_.cuGraphExecDestroy(std::exchange(exec_, nullptr));
  driver_.check(waited, "waiting for '" + name_ + "'");
  driver_.check(destroyed, "cuGraphExecDestroy");
}

void GraphRun::drop() {
  const std::lock_guard<std::mutex> lock(turn_);
  const Current current(*device_);
  drop_graph();
}

void GraphRun::close() {
  const std::lock_guard<std::mutex> lock(turn_);
  if (stream_ == nullptr) return;
  const Current current(*device_);
  int first = driver_.cuStreamSynchronize(stream_);
  const auto also = [&first](int result) { first = first != 0 ? first : result; };
  if (exec_ != nullptr) also(driver_.cuGraphExecDestroy(std::exchange(exec_, nullptr)));
  also(driver_.cuEventDestroy_v2(std::exchange(done_, nullptr)));
  also(driver_.cuStreamDestroy_v2(std::exchange(stream_, nullptr)));
  driver_.check(first, "closing '" + name_ + "'");
}

}  // namespace mmedge::cuda
