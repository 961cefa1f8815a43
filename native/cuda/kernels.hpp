// Our own kernels on the GPU (kernels.cu), where mmedge was built with nvcc.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/graph_run.hpp"
#include "cuda/picture_pixel.hpp"

namespace mmedge::cuda {

class Kernels {
 public:
  static bool built();

  // Loads them. Throws CudaError where mmedge was built without, or not for this GPU.
  explicit Kernels(std::shared_ptr<Device> device);
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  // Puts into the run's stream: camera's picture at `from` -> float32 [channels, height, width] at `out`,
  // which was zeros where nothing is filled. `rows`, `columns`: arrays of Tap.
  void picture(const GraphRun& run, const Picture& picture, DeviceAddress from, DeviceAddress rows,
               DeviceAddress columns, DeviceAddress out) const;
  // Likewise: float32 out[outputs] = weights[outputs, inputs] in[inputs] + bias[outputs], negative ones 0 if
  // `relu`.
  void dense(const GraphRun& run, DeviceAddress in, DeviceAddress weights, DeviceAddress bias,
             std::int32_t inputs, std::int32_t outputs, bool relu, DeviceAddress out) const;

 private:
  void launch(const GraphRun& run, CUfunc_st* function, unsigned across, unsigned down, unsigned deep,
              void** arguments, const char* what) const;

  std::shared_ptr<Device> device_;
  CUmod_st* module_ = nullptr;
  CUfunc_st *picture_ = nullptr, *dense_ = nullptr;
};

}  // namespace mmedge::cuda
