#include "mono.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

using Samples = nb::ndarray<nb::numpy, float, nb::ndim<1>>;

}  // namespace

// It lasts microseconds, so it keeps the GIL.
void bind_mono(nb::module_& m) {
  m.def(
      "mono",
      [](const Input& rows, const std::vector<std::size_t>& chosen) {
        if (rows.dtype() != nb::dtype<float>() || rows.ndim() != 2)
          throw std::invalid_argument("rows must be float32 with two dimensions");
        if (rows.shape(1) > 1 && rows.stride(1) != 1)
          throw std::invalid_argument("the samples of a channel must lie one behind the other");
        if (rows.stride(0) < 0) throw std::invalid_argument("channels must not be reversed");
        const std::size_t samples = rows.shape(1);
        std::unique_ptr<float[]> mixed(new float[samples]);
        std::vector<double> powers = mono({static_cast<const float*>(rows.data()), rows.shape(0), samples,
                                           static_cast<std::size_t>(rows.stride(0))},
                                          chosen, mixed.get());
        const nb::capsule owner(mixed.get(), [](void* data) noexcept { delete[] static_cast<float*>(data); });
        return std::make_pair(Samples(mixed.release(), {samples}, owner), std::move(powers));
      },
      nb::arg("rows").noconvert(), nb::arg("chosen"),
      nb::sig("def mono(rows: numpy.typing.NDArray[numpy.float32], chosen: collections.abc.Sequence[int]) -> "
              "tuple[numpy.typing.NDArray[numpy.float32], list[float]]"),
      "Return the mean of the chosen of [channels, samples], a new array, and sums of squares.\n\n"
      "These are of each channel and, last, of the mean.");
}

}  // namespace mmedge::bindings
