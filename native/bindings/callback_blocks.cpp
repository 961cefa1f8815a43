#include "callback_blocks.hpp"

#include <memory>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

using Planes = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

Planes planes(std::unique_ptr<float[]> values, std::int64_t channels, std::int64_t frames) {
  const nb::capsule owner(values.get(), [](void* data) noexcept { delete[] static_cast<float*>(data); });
  return Planes(values.release(), {static_cast<std::size_t>(channels), static_cast<std::size_t>(frames)},
                owner);
}

nb::object take(CallbackBlocks& self, int timeout_ms) {
  const CallbackBlocks::Block* block = nullptr;
  std::unique_ptr<float[]> values;
  {
    const nb::gil_scoped_release unlocked;
    block = self.next(timeout_ms);
    if (block != nullptr) {
      values.reset(new float[static_cast<std::size_t>(self.channels() * block->frames)]);
      self.copy_planar(values.get());
    }
  }
  if (block == nullptr) {
    if (self.closed()) return nb::none();
    PyErr_SetString(PyExc_TimeoutError, "no block came in time");
    throw nb::python_error();
  }
  const CallbackBlocks::Block told = *block;
  self.pop();
  return nb::make_tuple(planes(std::move(values), self.channels(), told.frames), told.counted, told.entry_ns,
                        told.adc_s, told.current_s, told.overflow);
}

}  // namespace

void bind_callback_blocks(nb::module_& m) {
  nb::class_<CallbackBlocks>(
      m, "CallbackBlocks",
      "Blocks of sound that PortAudio's own thread copies and stamps, without Python.\n\n"
      "It calls the function at ``function`` with ``data``, both addresses; one thread takes what came.")
      .def(nb::init<std::int64_t, std::int64_t, std::int64_t>(), nb::arg("blocks"), nb::arg("frames"),
           nb::arg("channels"), "Room for so many blocks of up to so many frames.")
      .def("take", &take, nb::arg("timeout_ms"),
           nb::sig("def take(self, timeout_ms: int) -> tuple[numpy.typing.NDArray[numpy.float32], int, int, "
                   "float, "
                   "float, bool] | None"),
           "Wait for the oldest block and return it; None once it was closed.\n\n"
           "Returns:\n"
           "    Samples, float32 [channels, frames], yours; frames that were counted until its end; when it "
           "was\n"
           "    delivered, in ns on CLOCK_MONOTONIC; on PortAudio's clock, in seconds, when its first frame "
           "was\n"
           "    converted and when it was delivered; whether some were lost before it.\n\n"
           "Raises:\n"
           "    TimeoutError: If nothing came.")
      .def("close", &CallbackBlocks::close, "Let who waits return at once, and later ones too.")
      .def_prop_ro("overflows", &CallbackBlocks::overflows, "Blocks before which PortAudio has lost some.")
      .def_prop_ro(
          "function",
          [](const CallbackBlocks&) { return reinterpret_cast<std::uintptr_t>(&CallbackBlocks::deliver); },
          "Address of the function: a PaStreamCallback.")
      .def_prop_ro(
          "data", [](CallbackBlocks& self) { return reinterpret_cast<std::uintptr_t>(&self); },
          "Address to call it with, valid as long as this object.");
}

}  // namespace mmedge::bindings
