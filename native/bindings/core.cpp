#include <system_error>

#include "bindings/modules.hpp"

namespace nb = nanobind;

NB_MODULE(_core, m) {
  m.doc() = "Native core of mmedge.";
  // What lives until the interpreter's end (a pipeline nobody closed) is no leak.
  nanobind::set_leak_warnings(false);
  nb::register_exception_translator([](const std::exception_ptr& error, void*) {
    try {
      std::rethrow_exception(error);
    } catch (const std::system_error& system) {
      const nb::tuple arguments = nb::make_tuple(system.code().value(), system.what());
      PyErr_SetObject(PyExc_OSError, arguments.ptr());
    }
  });
  mmedge::bindings::bind_cpu(m);
  mmedge::bindings::bind_image(m);
  mmedge::bindings::bind_jpeg_scan(m);
  mmedge::bindings::bind_log_mel(m);
  mmedge::bindings::bind_sample_ring(m);
  mmedge::bindings::bind_slot_ring(m);
}
