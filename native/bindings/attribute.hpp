// What a Python object has, as C++ wants it.
#pragma once

#include <nanobind/nanobind.h>

namespace mmedge::bindings {

template <typename T>
T attribute(nanobind::handle object, const char* name) {
  return nanobind::cast<T>(object.attr(name));
}

}  // namespace mmedge::bindings
