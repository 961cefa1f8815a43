// How CUDA's driver is called, against a stand-in that computes nothing: no GPU takes part.
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "cuda/graph_run.hpp"
#include "cuda/kernels.hpp"
#include "cuda/memory.hpp"
#include "cuda_stand_in.hpp"

namespace {

using namespace mmedge::cuda;

// An engine that copies its input to its output by way of the GPU, and launches a kernel where there are
// some.
struct Copier {
  std::shared_ptr<Device> device = Device::open(0);
  GraphRun run{device, "copier"};
  HostMemory in{device, 8}, out{device, 8};
  DeviceMemory there{device, 8};
  std::unique_ptr<Kernels> kernels = Kernels::built() ? std::make_unique<Kernels>(device) : nullptr;

  Copier() {
    run.capture([this] {
      run.upload(there.address(), in.data(), 8);
      if (kernels) {
        Picture picture{};
        picture.rows = picture.columns = picture.channels = 1;
        kernels->picture(run, picture, there.address(), there.address(), there.address(), there.address());
        kernels->dense(run, there.address(), there.address(), there.address(), 2, 1, true, there.address());
      }
      run.download(out.data(), there.address(), 8);
    });
  }
};

void runs() {
  const int launches = stand_in_launches(), copies = stand_in_copies(), kernels = stand_in_kernels();
  {
    Copier copier;
    CHECK(copier.run.captured() && stand_in_copies() == copies);  // recorded, not done
    for (int i = 1; i <= 3; ++i) {
      std::memset(copier.in.data(), i, 8);
      stand_in_busy(i == 2 ? 5 : i == 3 ? 1 << 30 : 0);  // done at once, soon, and only after it slept
      copier.run.run();
      CHECK(std::memcmp(copier.in.data(), copier.out.data(), 8) == 0);
    }
    stand_in_busy(0);
    CHECK(stand_in_launches() == launches + 3 && stand_in_copies() == copies + 6);
    CHECK(stand_in_kernels() == kernels + (Kernels::built() ? 6 : 0));
    std::thread([&copier] { copier.run.run(); }).join();  // another thread has no context of its own
    stand_in_fail(-1, 0);
    copier.run.run();
    CHECK(stand_in_calls() == 4);  // push, launch, record, query; the pop is not counted
  }
  CHECK(stand_in_live() == 0);
}

template <typename Function>
int code_of(Function function) {
  try {
    function();
  } catch (const CudaError& error) {
    CHECK(!std::string(error.what()).empty() && !error.fix.empty());
    return error.code;
  }
  return -1;
}

void closing() {
  Copier copier;
  copier.run.drop();
  CHECK(!copier.run.captured() && code_of([&] { copier.run.run(); }) == 0);
  copier.run.close();
  copier.run.close();
  CHECK(code_of([&] { copier.run.run(); }) == 0);
  CHECK(code_of([&] { copier.run.wait(); }) == 0);
  CHECK(code_of([&] { copier.run.upload(copier.there.address(), copier.in.data(), 8); }) == 0);
  CHECK(code_of([&] { copier.run.capture([] {}); }) == 0);
}

// A stage on SMs of its own and one on the rest: each has its stream, and contexts go after the last of them.
void shares() {
  const auto device = Device::open(0);
  for (const auto& [wanted, reserved] : {std::pair{1u, 4u}, {5u, 6u}, {8u, 8u}}) {
    auto share = std::make_shared<SmShare>(device, wanted);
    CHECK(share->reserved() == reserved && share->rest() == 16 - reserved);
    GraphRun own(device, "own", share), other(device, "other", share, false), all(device, "all");
    share.reset();
    CHECK(stand_in_sms(own.stream()) == reserved && stand_in_sms(other.stream()) == 16 - reserved);
    CHECK(stand_in_sms(all.stream()) == 16);
    own.capture([] {});
    own.run();
  }
  for (const unsigned wanted : {0u, 16u, 17u, 15u}) {
    CHECK(code_of([&] { SmShare(device, wanted); }) == 0);
  }
}

// Whatever fails, it is told, and nothing is left but what could not be given back.
void failures() {
  const auto use = [] {
    Copier copier, other;
    copier.run.run();
    copier.run.close();
    GraphRun(copier.device, "shared", std::make_shared<SmShare>(copier.device, 4)).close();
  };
  stand_in_fail(-1, 0);
  use();
  const int calls = stand_in_calls();
  CHECK(calls > 40 && stand_in_live() == 0);
  int told = 0;
  for (int n = 0; n < calls; ++n) {
    const std::size_t before = stand_in_live();
    stand_in_fail(n, kOutOfMemory);
    const bool thrown = code_of(use) == kOutOfMemory;
    const std::string call = stand_in_failed();
    bool gives_back = false;
    for (const char* word : {"Free", "Destroy", "Unload", "Release", "Push"})
      gives_back = gives_back || call.find(word) != std::string::npos;
    // A destructor waits, too, and cannot tell what that came to.
    CHECK(thrown || gives_back || call == "cuStreamSynchronize");
    CHECK(stand_in_live() == before || gives_back);
    told += thrown;
  }
  CHECK(told > 30);
}

void recording_that_throws() {
  stand_in_fail(-1, 0);
  {
    Copier copier;
    bool thrown = false;
    try {
      copier.run.capture([] { throw std::runtime_error("enqueue"); });
    } catch (const std::runtime_error& error) {
      thrown = std::string(error.what()) == "enqueue";
    }
    CHECK(thrown && !copier.run.captured());
    copier.run.wait();  // the stream is no longer recorded
    CHECK(refuses([&] { copier.there.write("123456789", 9); }));
  }
  CHECK(stand_in_live() == 0);
}

void messages() {
  const auto device = Device::open(0);
  stand_in_fail(1, kOutOfMemory);
  try {
    const DeviceMemory memory(device, 64);
    CHECK(false);
  } catch (const CudaError& error) {
    CHECK(std::string(error.what()) ==
          "allocating 64 bytes on the GPU failed: out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2)");
    CHECK(error.fix.find("free GPU memory") != std::string::npos);
  }
  stand_in_fail(-1, 0);
  CHECK(Device::count() == 1 && Device::facts(0).major == 8 && Device::facts(0).name == "stand-in");
  CHECK(code_of([] { Device::facts(1); }) == 101);
  CHECK(device->free_bytes() == std::size_t{8} << 30);
}

}  // namespace

int main() {
  runs();
  closing();
  recording_that_throws();
  messages();
  shares();
  CHECK(stand_in_live() == 0);
  failures();  // the last: it leaves what could not be given back
}
