#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "cuda/graph_run.hpp"
#include "cuda/kernels.hpp"
#include "cuda/memory.hpp"

namespace mmedge::bindings {
namespace {

using cuda::Device;
using cuda::DeviceAddress;
using cuda::DeviceMemory;
using cuda::GraphRun;
using cuda::HostMemory;
using cuda::Kernels;
using cuda::SmShare;

// One tensor's memory on both sides; where it is mapped, both are the same.
class Buffer {
 public:
  Buffer(const std::shared_ptr<Device>& device, std::size_t bytes, bool mapped)
      : bytes_(bytes), host_(std::make_shared<HostMemory>(device, bytes > 0 ? bytes : 1)) {
    if (mapped)
      address_ = host_->mapped();
    else
      device_ = std::make_unique<DeviceMemory>(device, bytes > 0 ? bytes : 1), address_ = device_->address();
  }

  nb::ndarray<nb::numpy, std::uint8_t, nb::shape<-1>> host() const {
    // Whoever holds a view holds the memory: after `close` it has old values, and never is freed memory.
    nb::capsule owner(new std::shared_ptr<HostMemory>(open()),
                      [](void* held) noexcept { delete static_cast<std::shared_ptr<HostMemory>*>(held); });
    return {host_->data(), {bytes_}, owner};
  }
  DeviceAddress address() const { return open(), address_; }
  void upload(GraphRun& run) const {
    if (open(), device_ && bytes_ > 0) run.upload(address_, host_->data(), bytes_);
  }
  void download(GraphRun& run) const {
    if (open(), device_ && bytes_ > 0) run.download(host_->data(), address_, bytes_);
  }
  void close() { device_.reset(), host_.reset(); }

 private:
  const std::shared_ptr<HostMemory>& open() const {
    if (!host_) throw std::invalid_argument("the buffer is closed");
    return host_;
  }

  std::size_t bytes_;
  std::shared_ptr<HostMemory> host_;
  std::unique_ptr<DeviceMemory> device_;
  DeviceAddress address_ = 0;
};

std::optional<std::string> problem() {
  try {
    return Device::count() > 0 ? std::nullopt : std::optional<std::string>("the driver reports no device");
  } catch (const cuda::CudaError& error) {
    return error.what();
  }
}

cuda::Picture picture_of(const nb::bytes& bytes) {
  cuda::Picture picture;
  if (bytes.size() != sizeof picture) throw std::invalid_argument("these bytes are no picture's");
  std::memcpy(&picture, bytes.data(), sizeof picture);
  return picture;
}

void raise_as_ours(const std::exception_ptr& error, void*) {
  try {
    std::rethrow_exception(error);
  } catch (const cuda::CudaError& ours) {
    const nb::object type = nb::module_::import_("mmedge.errors").attr("EngineError");
    const nb::object made = type(ours.what(), nb::arg("fix") = ours.fix);
    PyErr_SetObject(type.ptr(), made.ptr());
  }
}

}  // namespace

void bind_cuda(nb::module_& m) {
  nb::register_exception_translator(raise_as_ours);
  m.def("cuda_problem", &problem, "Say why no GPU can be used; None when one can. Loads the driver.");
  nb::class_<cuda::Facts>(m, "CudaFacts", "What a GPU is.")
      .def_ro("name", &cuda::Facts::name, "As the driver calls it.")
      .def_ro("major", &cuda::Facts::major, "Of the compute capability.")
      .def_ro("minor", &cuda::Facts::minor, "Of the compute capability.")
      .def_ro("memory_bytes", &cuda::Facts::memory_bytes, "That it can use.")
      .def_ro("integrated", &cuda::Facts::integrated, "Whether CPU and GPU share one memory.")
      .def_ro("cuda_version", &cuda::Facts::cuda_version, "Newest that the driver supports: 12060 is 12.6.");
  m.def("cuda_facts", &Device::facts, nb::arg("ordinal") = 0,
        "Say what a GPU is, without a context; raises EngineError where there is none.");
  nb::class_<Device>(m, "CudaDevice", "The first GPU and its primary context, which TensorRT uses, too.")
      .def(nb::new_([] { return Device::open(0); }), "Raises EngineError where it cannot be used.")
      .def_prop_ro("free_bytes", &Device::free_bytes, "Memory that is free now.");
  nb::class_<DeviceMemory>(m, "CudaMemory", "Zeros on the GPU, freed with the object.")
      .def(nb::init<std::shared_ptr<Device>, std::size_t>(), nb::arg("device"), nb::arg("bytes"))
      .def(
          "write",
          [](DeviceMemory& self, const Input& array) {
            check_contiguous(array, "the array");
            self.write(array.data(), array.nbytes());
          },
          nb::arg("array"), nb::sig("def write(self, array: numpy.typing.NDArray[typing.Any]) -> None"),
          "Copy a C-contiguous array [...] of any dtype to its begin, and return when it is there.")
      .def_prop_ro("address", &DeviceMemory::address, "Where it lies for the GPU.");
  nb::class_<Buffer>(m, "CudaBuffer",
                     "One tensor's memory on both sides: pinned on the host, and where the GPU works on it.")
      .def(nb::init<const std::shared_ptr<Device>&, std::size_t, bool>(), nb::arg("device"), nb::arg("bytes"),
           nb::kw_only(), nb::arg("mapped"),
           "``mapped``: both sides are one memory, as integrated GPUs like it. All of it is zeros.")
      .def("host", &Buffer::host, nb::sig("def host(self) -> numpy.typing.NDArray[numpy.uint8]"),
           "Its bytes, uint8 [bytes]; the memory lives as long as a view of it.")
      .def_prop_ro("address", &Buffer::address, "Where it lies for the GPU.")
      .def("upload", &Buffer::upload, nb::arg("run"), "Put the copy to the GPU into the run's stream.")
      .def("download", &Buffer::download, nb::arg("run"), "Put the copy to the host into the run's stream.")
      .def("close", &Buffer::close, "Free the GPU's side; the host's follows its last view.");
  nb::class_<SmShare>(m, "SmShare",
                      "A part of the GPU's SMs that is reserved, and the rest: two green contexts.")
      .def(nb::init<std::shared_ptr<Device>, unsigned>(), nb::arg("device"), nb::arg("wanted"),
           "``wanted``: SMs to reserve; the driver rounds up. Raises EngineError where it cannot.")
      .def_prop_ro("reserved", &SmShare::reserved, "SMs of the reserved part.")
      .def_prop_ro("rest", &SmShare::rest, "SMs of the rest.");
  nb::class_<NativeRun>(m, "NativeRun", "An engine's run that C++ calls by itself, without Python's lock.")
      .def("run", &NativeRun::run, nb::call_guard<nb::gil_scoped_release>(),
           "Compute the outputs from the inputs; raises EngineError.");
  nb::class_<GraphRun, NativeRun>(
      m, "CudaRun",
      "What an engine does at each run, recorded once as a CUDA graph and launched by one call.")
      .def(nb::init<std::shared_ptr<Device>, std::string, std::shared_ptr<SmShare>, bool>(),
           nb::arg("device"), nb::arg("name"), nb::arg("share") = nb::none(), nb::arg("reserved") = true,
           "``name``: whose run it is, for messages. With a ``share``, it runs on its reserved SMs or on the "
           "rest.")
      .def_prop_ro(
          "stream", [](const GraphRun& self) { return reinterpret_cast<std::uintptr_t>(self.stream()); },
          "Its ``CUstream``, as a number.")
      .def_prop_ro("captured", &GraphRun::captured, "Whether there is a graph to launch.")
      .def("capture", &GraphRun::capture, nb::arg("enqueue"),
           "Record what ``enqueue`` puts into the stream instead of doing it; what it raises ends the "
           "recording.")
      .def("wait", &GraphRun::wait, nb::call_guard<nb::gil_scoped_release>(),
           "Return when the stream has done all that was put into it.")
      .def("drop", &GraphRun::drop, nb::call_guard<nb::gil_scoped_release>(),
           "Wait, and give the graph back: before what it launches goes.")
      .def("close", &GraphRun::close, nb::call_guard<nb::gil_scoped_release>(), "Give all back; idempotent.");
  nb::class_<Kernels>(m, "CudaKernels", "Our own kernels on the GPU, where mmedge was built with nvcc.")
      .def_static("built", &Kernels::built, "Whether mmedge was built with them.")
      .def(nb::init<std::shared_ptr<Device>>(), nb::arg("device"),
           "Raises EngineError where mmedge was built without them, or not for this GPU.")
      .def(
          "picture",
          [](const Kernels& self, const GraphRun& run, const nb::bytes& picture, DeviceAddress from,
             DeviceAddress rows, DeviceAddress columns,
             DeviceAddress out) { self.picture(run, picture_of(picture), from, rows, columns, out); },
          nb::arg("run"), nb::arg("picture"), nb::arg("source"), nb::arg("rows"), nb::arg("columns"),
          nb::arg("out"),
          "Put into the run's stream: a camera's picture -> float32 [channels, height, width].\n\n"
          "``picture``, and what lies at ``rows`` and ``columns``, are those of ``ImageKernel.gpu_table``.")
      .def(
          "dense", &Kernels::dense, nb::arg("run"), nb::arg("source"), nb::arg("weights"), nb::arg("bias"),
          nb::arg("inputs"), nb::arg("outputs"), nb::arg("relu"), nb::arg("out"),
          "Put into the run's stream: out [outputs] = weights [outputs, inputs] source + bias, all float32.");
}

}  // namespace mmedge::bindings
