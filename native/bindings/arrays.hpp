// numpy arrays at the border: checked here, so that the core may trust its pointers.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace mmedge::bindings {

namespace nb = nanobind;
using Input = nb::ndarray<nb::ro, nb::device::cpu>;
using Output = nb::ndarray<nb::device::cpu>;

// Throws std::invalid_argument (ValueError) unless `array` is C-contiguous.
template <typename Array>
void check_contiguous(const Array& array, const char* name) {
  std::int64_t stride = 1;
  for (std::size_t i = array.size() > 0 ? array.ndim() : 0; i-- > 0;) {
    if (array.shape(i) > 1 && array.stride(i) != stride)
      throw std::invalid_argument(std::string(name) + " must be C-contiguous");
    stride *= static_cast<std::int64_t>(array.shape(i));
  }
}

// Likewise unless it is aligned, C-contiguous and of type T.
template <typename T, typename Array>
void check(const Array& array, const char* name) {
  if (array.dtype() != nb::dtype<T>())
    throw std::invalid_argument(std::string(name) + " must be " +
                                (sizeof(T) == 1   ? "uint8"
                                 : sizeof(T) == 4 ? "float32"
                                                  : "float64"));
  check_contiguous(array, name);
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0)
    throw std::invalid_argument(std::string(name) + " must be aligned");
}

template <typename Array>
void check_shape(const Array& array, const char* name, std::initializer_list<std::size_t> shape) {
  bool same = array.ndim() == shape.size();
  for (std::size_t i = 0; same && i < shape.size(); ++i) same = array.shape(i) == shape.begin()[i];
  if (same) return;
  std::string got, want;
  for (std::size_t i = 0; i < array.ndim(); ++i) got += (i ? ", " : "") + std::to_string(array.shape(i));
  for (const std::size_t size : shape) want += (want.empty() ? "" : ", ") + std::to_string(size);
  throw std::invalid_argument(std::string(name) + " must have shape (" + want + "), got (" + got + ")");
}

}  // namespace mmedge::bindings
