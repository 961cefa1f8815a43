#include "jpeg_scan.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_jpeg_scan(nb::module_& m) {
  m.def(
      "jpeg_unused",
      [](const Input& data) {
        check<std::uint8_t>(data, "data");
        const nb::gil_scoped_release unlocked;
        return jpeg_unused(static_cast<const std::uint8_t*>(data.data()), data.size());
      },
      nb::arg("data").noconvert(), nb::sig("def jpeg_unused(data: numpy.typing.NDArray[numpy.uint8]) -> int"),
      "Bytes in the scans of a JPEG picture [n] that no block uses; -1: it is damaged, -2: of a kind that is "
      "not judged.");
}

}  // namespace mmedge::bindings
