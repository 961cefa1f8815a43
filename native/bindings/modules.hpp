// One function per header of the core; each adds that header's classes to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace mmedge::bindings {

void bind_cpu(nanobind::module_& m);
void bind_image(nanobind::module_& m);
void bind_jpeg_scan(nanobind::module_& m);
void bind_log_mel(nanobind::module_& m);
void bind_sample_ring(nanobind::module_& m);
void bind_slot_ring(nanobind::module_& m);

}  // namespace mmedge::bindings
