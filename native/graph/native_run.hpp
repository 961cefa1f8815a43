// An engine that C++ runs by itself.
#pragma once

namespace mmedge {

class NativeRun {
 public:
  virtual ~NativeRun() = default;
  // Computes its outputs from its inputs. Called without Python's lock; throws what went wrong.
  virtual void run() = 0;
};

}  // namespace mmedge
