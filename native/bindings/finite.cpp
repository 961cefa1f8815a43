#include "finite.hpp"

#include <nanobind/stl/vector.h>

#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

// Arrays that stay where they are, and may change.
class FiniteCheck {
 public:
  explicit FiniteCheck(std::vector<Input> arrays) : arrays_(std::move(arrays)) {
    for (const Input& array : arrays_) {
      const nb::dlpack::dtype type = array.dtype();
      if (type.code != static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float) || type.lanes != 1 ||
          (type.bits != 16 && type.bits != 32 && type.bits != 64))
        throw std::invalid_argument("arrays must be float16, float32 or float64");
      check_contiguous(array, "an array");
    }
  }

  int first_bad() const {
    for (std::size_t i = 0; i < arrays_.size(); ++i)
      if (!all_finite(arrays_[i].data(), arrays_[i].size(), arrays_[i].itemsize()))
        return static_cast<int>(i);
    return -1;
  }

 private:
  std::vector<Input> arrays_;
};

}  // namespace

void bind_finite(nb::module_& m) {
  nb::class_<FiniteCheck>(m, "FiniteCheck", "Looks for NaN and infinity in arrays that stay where they are.")
      .def(nb::init<std::vector<Input>>(), nb::arg("arrays"),
           nb::sig("def __init__(self, arrays: Sequence[numpy.typing.NDArray[numpy.floating]]) -> None"),
           "Arrays [...] are float16, float32 or float64 and C-contiguous; they are kept alive.")
      .def("__call__", &FiniteCheck::first_bad,
           "Return the index of the first array that is not finite, or -1.");
}

}  // namespace mmedge::bindings
