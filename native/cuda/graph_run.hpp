// What an engine does at each run, recorded once as a CUDA graph and launched by one call.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "cuda/device.hpp"
#include "cuda/sm_share.hpp"
#include "graph/native_run.hpp"

namespace mmedge::cuda {

// A stream of its own, an event that tells when it is done, and the graph. Calls take turns.
class GraphRun final : public NativeRun {
 public:
  // `name`: whose run it is, for messages. With a `share`, it runs on the reserved SMs of it, or on the rest.
  // Throws CudaError.
  GraphRun(std::shared_ptr<Device> device, std::string name, std::shared_ptr<SmShare> share = nullptr,
           bool reserved = true);
  ~GraphRun() override;
  GraphRun(const GraphRun&) = delete;
  GraphRun& operator=(const GraphRun&) = delete;

  CUstream_st* stream() const { return stream_; }
  const std::shared_ptr<Device>& device() const { return device_; }

  // Copies between memory of the host and of the GPU, when the stream comes to it.
  void upload(DeviceAddress to, const void* from, std::size_t bytes);
  void download(void* to, DeviceAddress from, std::size_t bytes);
  // Returns when the stream has done all that was put into it.
  void wait();

  // Records what `enqueue` puts into the stream, from this thread, instead of doing it. Whatever it throws
  // ends the recording and goes on to the caller.
  void capture(const std::function<void()>& enqueue);
  bool captured() const { return exec_ != nullptr; }

  // Launches the graph and returns when it is done. Throws CudaError, also if there is no graph.
  void run() override;

  // Waits, and gives the graph back: before what it launches goes.
  void drop();
  // Gives all back; idempotent. Throws CudaError of what failed before, once it is closed.
  void close();

 private:
  void require_open() const;
  void wait_for_event();
  void drop_graph();

  std::shared_ptr<Device> device_;
  std::shared_ptr<SmShare> share_;
  const Driver& driver_;
  std::string name_;
  std::mutex turn_;
  CUstream_st* stream_ = nullptr;
  CUevent_st* done_ = nullptr;
  CUgraphExec_st* exec_ = nullptr;
};

}  // namespace mmedge::cuda
