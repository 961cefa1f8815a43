#include <cstring>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

struct Plane {
  const std::uint8_t* data;
  std::size_t line, rows, columns;
};

// Rows of each plane lie `line` bytes apart, and one after the other where they go to.
void copy_planes(const nb::list& planes, const Output& out) {
  check<std::uint8_t>(out, "out");
  std::vector<Plane> found;
  std::vector<Input> kept;
  std::size_t bytes = 0;
  for (const nb::handle each : planes) {
    const auto told = nb::cast<nb::tuple>(each);
    const auto from = nb::cast<Input>(told[0]);
    const Plane plane{static_cast<const std::uint8_t*>(from.data()), nb::cast<std::size_t>(told[1]),
                      nb::cast<std::size_t>(told[2]), nb::cast<std::size_t>(told[3])};
    check_contiguous(from, "a plane");
    if (plane.columns > plane.line || (plane.line > 0 && plane.rows > from.nbytes() / plane.line))
      throw std::invalid_argument("a plane has fewer bytes than its rows");
    if (plane.rows > 0 && plane.columns > out.nbytes() / plane.rows)
      throw std::invalid_argument("the planes do not fit into the slot");
    bytes += plane.rows * plane.columns;
    found.push_back(plane);
    kept.push_back(from);
  }
  if (bytes > out.nbytes()) throw std::invalid_argument("the planes do not fit into the slot");
  const nb::gil_scoped_release unlocked;
  auto* to = static_cast<std::uint8_t*>(out.data());
  for (const Plane& plane : found) {
    if (plane.columns == plane.line) {
      std::memcpy(to, plane.data, plane.rows * plane.columns);
      to += plane.rows * plane.columns;
      continue;
    }
    for (std::size_t row = 0; row < plane.rows; ++row, to += plane.columns)
      std::memcpy(to, plane.data + row * plane.line, plane.columns);
  }
}

}  // namespace

void bind_planes(nb::module_& m) {
  m.def("copy_planes", &copy_planes, nb::arg("planes"), nb::arg("out").noconvert(),
        nb::sig("def copy_planes(planes: list[tuple[typing.Any, int, int, int]], out: "
                "numpy.typing.NDArray[numpy.uint8]) -> None"),
        "Copy planes of bytes one after the other into ``out``, contiguous and as large as all of them or "
        "larger.\n\n"
        "Of each: what has its bytes, how many lie between the begin of two rows, rows, and bytes to take of "
        "each.\nRaises ValueError where a plane has fewer bytes than that, or ``out`` is too small.");
}

}  // namespace mmedge::bindings
