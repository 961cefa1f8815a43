#include "image.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

using Corners = std::tuple<std::size_t, std::size_t, std::size_t, std::size_t>;

PixelFormat parse_format(const std::string& name) {
  if (name == "gray8") return PixelFormat::gray8;
  if (name == "bgr24") return PixelFormat::bgr24;
  if (name == "rgb24") return PixelFormat::rgb24;
  if (name == "yuv420p") return PixelFormat::yuv420p;
  if (name == "nv12") return PixelFormat::nv12;
  throw std::invalid_argument("unknown pixel format '" + name +
                              "'; known: gray8, bgr24, rgb24, yuv420p, nv12");
}

Color parse_color(const std::string& name) {
  if (name == "gray") return Color::gray;
  if (name == "rgb") return Color::rgb;
  if (name == "bgr") return Color::bgr;
  throw std::invalid_argument("unknown color '" + name + "'; known: gray, rgb, bgr");
}

Box box(const Corners& corners) {
  const auto [top, left, height, width] = corners;
  return {top, left, height, width};
}

ImageView view(const Input& data, const std::string& format_name, std::size_t width, std::size_t height,
               bool full_range) {
  const PixelFormat format = parse_format(format_name);
  check<std::uint8_t>(data, "frame");
  if (format == PixelFormat::bgr24 || format == PixelFormat::rgb24)
    check_shape(data, "frame", {height, width, 3});
  else if (format == PixelFormat::gray8)
    check_shape(data, "frame", {height, width});
  else
    check_shape(data, "frame", {height + height / 2, width});
  return {static_cast<const std::uint8_t*>(data.data()), format, width, height, full_range};
}

}  // namespace

void bind_image(nb::module_& m) {
  nb::class_<ImageKernel>(
      m, "ImageKernel",
      "Camera frame -> network input, in one pass.\n\n"
      "Boxes are (top, left, height, width): ``crop`` in the reduced frame, ``target`` in the output.")
      .def(
          "__init__",
          [](ImageKernel* self, std::tuple<std::size_t, std::size_t> frame, const std::string& color,
             std::size_t reduce, const Corners& crop, const Corners& target,
             std::tuple<std::size_t, std::size_t> size, std::vector<float> mean, std::vector<float> std) {
            new (self) ImageKernel(ImageSpec{std::get<0>(frame), std::get<1>(frame), parse_color(color),
                                             reduce, box(crop), box(target), std::get<0>(size),
                                             std::get<1>(size), std::move(mean), std::move(std)});
          },
          nb::arg("frame"), nb::arg("color"), nb::arg("reduce"), nb::arg("crop"), nb::arg("target"),
          nb::arg("size"), nb::arg("mean"), nb::arg("std"))
      .def(
          "tensor",
          [](ImageKernel& self, const Input& data, const std::string& format, std::size_t width,
             std::size_t height, bool full_range, const Output& out) {
            const ImageView frame = view(data, format, width, height, full_range);
            const ImageSpec& spec = self.spec();
            check<float>(out, "out");
            check_shape(out, "out", {1, spec.channels(), spec.height, spec.width});
            const nb::gil_scoped_release unlocked;
            self.tensor(frame, static_cast<float*>(out.data()));
          },
          nb::arg("data").noconvert(), nb::arg("format"), nb::arg("width"), nb::arg("height"),
          nb::arg("full_range"), nb::arg("out").noconvert(),
          nb::sig("def tensor(self, data: numpy.typing.NDArray[numpy.uint8], format: str, width: int, "
                  "height: int, "
                  "full_range: bool, out: numpy.typing.NDArray[numpy.float32]) -> None"),
          "Write the normalised float32 tensor [1, channels, height, width].")
      .def(
          "raw",
          [](ImageKernel& self, const Input& data, const std::string& format, std::size_t width,
             std::size_t height, bool full_range, const Output& out) {
            const ImageView frame = view(data, format, width, height, full_range);
            const ImageSpec& spec = self.spec();
            check<std::uint8_t>(out, "out");
            check_shape(out, "out", {1, spec.frame_height, spec.frame_width, spec.channels()});
            const nb::gil_scoped_release unlocked;
            self.raw(frame, static_cast<std::uint8_t*>(out.data()));
          },
          nb::arg("data").noconvert(), nb::arg("format"), nb::arg("width"), nb::arg("height"),
          nb::arg("full_range"), nb::arg("out").noconvert(),
          nb::sig(
              "def raw(self, data: numpy.typing.NDArray[numpy.uint8], format: str, width: int, height: int, "
              "full_range: bool, out: numpy.typing.NDArray[numpy.uint8]) -> None"),
          "Write the uint8 frame [1, frame height, frame width, channels].");
}

}  // namespace mmedge::bindings
