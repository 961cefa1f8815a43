// Times at the border: any Python integer; what 64 bits cannot hold becomes the nearest that they can.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "integers.hpp"

namespace mmedge::bindings {

struct Nanoseconds {
  std::int64_t value;
  operator std::int64_t() const { return value; }
};

}  // namespace mmedge::bindings

namespace nanobind::detail {

template <>
struct type_caster<mmedge::bindings::Nanoseconds> {
  NB_TYPE_CASTER(mmedge::bindings::Nanoseconds, const_name("int"))

  bool from_python(handle source, std::uint32_t, cleanup_list*) noexcept {
    object number;
    if (!PyLong_Check(source.ptr())) {  // numpy's integers; a float has no index
      number = steal(PyNumber_Index(source.ptr()));
      if (!number.is_valid()) {
        PyErr_Clear();
        return false;
      }
      source = number;
    }
    int beyond = 0;
    value.value = PyLong_AsLongLongAndOverflow(source.ptr(), &beyond);
    if (beyond != 0) value.value = beyond > 0 ? mmedge::kMaxInt64 : mmedge::kMinInt64;
    return true;
  }

  static handle from_cpp(const mmedge::bindings::Nanoseconds& time, rv_policy, cleanup_list*) noexcept {
    return PyLong_FromLongLong(time.value);
  }
};

}  // namespace nanobind::detail
