// Python's values in MessagePack.
#pragma once

#include <nanobind/nanobind.h>

#include <string_view>

#include "results/packer.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

inline std::string_view view_of(nb::handle text) {
  Py_ssize_t size = 0;
  const char* const data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) nb::raise_python_error();
  return {data, static_cast<std::size_t>(size)};
}

inline std::string_view view_of(const nb::bytes& data) { return {data.c_str(), data.size()}; }

// Writes a dict of texts; `each` writes a value.
template <typename Each>
void pack_dict(const nb::dict& values, Packer* to, Each each) {
  to->map(values.size());
  for (const auto [key, value] : values) {
    to->string(view_of(key));
    each(value);
  }
}

}  // namespace mmedge::bindings
