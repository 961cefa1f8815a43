// CUDA's driver, loaded when it is first needed: mmedge is built, imported and tested without one.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/driver_api.hpp"

namespace mmedge::cuda {

// A call that failed, with CUDA's name and text of the reason.
class CudaError : public std::runtime_error {
 public:
  CudaError(const std::string& message, int result, std::string what_to_do)
      : std::runtime_error(message), code(result), fix(std::move(what_to_do)) {}
  const int code;         // CUresult, 0 where no call was made
  const std::string fix;  // what the user can do
};

class Driver {
 public:
  // Loads libcuda.so.1 and initialises it, once in a process that succeeds with it. Throws CudaError.
  static const Driver& get();

  // Throws CudaError unless `result` is 0. `what`: the call, for the message.
  void check(int result, const std::string& what) const;
  // Throws CudaError unless the driver can split a GPU into green contexts.
  void require_green() const;

#define MMEDGE_CUDA_MEMBER(name, arguments) int(*name) arguments = nullptr;
  MMEDGE_CUDA_FUNCTIONS(MMEDGE_CUDA_MEMBER)
  MMEDGE_CUDA_GREEN_FUNCTIONS(MMEDGE_CUDA_MEMBER)  // null where the driver is older
#undef MMEDGE_CUDA_MEMBER

 private:
  Driver();
};

}  // namespace mmedge::cuda
