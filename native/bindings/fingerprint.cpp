#include "fingerprint.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

// 20 us for the brightness of 640x480: shorter than to get the GIL back can take.
void bind_fingerprint(nb::module_& m) {
  m.def(
      "fingerprint",
      [](const Input& bytes) {
        check<std::uint8_t>(bytes, "bytes");
        return fingerprint(static_cast<const std::uint8_t*>(bytes.data()), bytes.size());
      },
      nb::arg("bytes").noconvert(),
      nb::sig("def fingerprint(bytes: numpy.typing.NDArray[numpy.uint8]) -> int"),
      "Return 64 bits that are equal for equal bytes of any shape, and for others hardly ever; no secret.");
}

}  // namespace mmedge::bindings
