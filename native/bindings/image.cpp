#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "bindings/image_view.hpp"
#include "bindings/modules.hpp"
#include "cuda/picture_table.hpp"

namespace mmedge::bindings {
namespace {

// camera, block, first, count, step, shift, start, length, out, cell, cell_first
using AxisNumbers = std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, double, double,
                               std::size_t, std::size_t, std::size_t, double, double>;

Color parse_color(const std::string& name) {
  if (name == "gray") return Color::gray;
  if (name == "rgb") return Color::rgb;
  if (name == "bgr") return Color::bgr;
  throw std::invalid_argument("unknown color '" + name + "'; known: gray, rgb, bgr");
}

Axis axis(const AxisNumbers& numbers) {
  const auto [camera, block, first, count, step, shift, start, length, out, cell, cell_first] = numbers;
  return {camera, block, first, count, step, shift, start, length, out, cell, cell_first};
}

ImageView view(const Input& data, const std::string& format, std::size_t width, std::size_t height,
               const std::string& matrix, bool full_range) {
  return view_of_picture(data, parse_format(format), width, height, parse_matrix(matrix), full_range);
}

}  // namespace

PixelFormat parse_format(const std::string& name) {
  if (name == "gray8") return PixelFormat::gray8;
  if (name == "bgr24") return PixelFormat::bgr24;
  if (name == "rgb24") return PixelFormat::rgb24;
  if (name == "yuv420p") return PixelFormat::yuv420p;
  if (name == "nv12") return PixelFormat::nv12;
  if (name == "yuv422p") return PixelFormat::yuv422p;
  if (name == "yuv444p") return PixelFormat::yuv444p;
  if (name == "yuyv422") return PixelFormat::yuyv422;
  if (name == "p010le") return PixelFormat::p010;
  if (name == "yuv420p10le") return PixelFormat::yuv420p10;
  throw std::invalid_argument("unknown pixel format '" + name +
                              "'; known: gray8, bgr24, rgb24, yuv420p, nv12, yuv422p, yuv444p, yuyv422, "
                              "p010le, yuv420p10le");
}

Matrix parse_matrix(const std::string& name) {
  if (name == "bt601") return Matrix::bt601;
  if (name == "bt709") return Matrix::bt709;
  if (name == "fcc") return Matrix::fcc;
  if (name == "smpte240m") return Matrix::smpte240m;
  if (name == "bt2020") return Matrix::bt2020;
  throw std::invalid_argument("unknown matrix '" + name + "'; known: bt601, bt709, fcc, smpte240m, bt2020");
}

ImageView view_of_picture(const Input& data, PixelFormat format, std::size_t width, std::size_t height,
                          Matrix matrix, bool full_range) {
  check<std::uint8_t>(data, "frame");
  if (format == PixelFormat::bgr24 || format == PixelFormat::rgb24)
    check_shape(data, "frame", {height, width, 3});
  else if (format == PixelFormat::yuyv422)
    check_shape(data, "frame", {height, width, 2});
  else if (format == PixelFormat::p010 || format == PixelFormat::yuv420p10)
    check_shape(data, "frame", {height + height / 2, 2 * width});
  else if (format == PixelFormat::gray8)
    check_shape(data, "frame", {height, width});
  else if (format == PixelFormat::yuv422p)
    check_shape(data, "frame", {2 * height, width});
  else if (format == PixelFormat::yuv444p)
    check_shape(data, "frame", {3 * height, width});
  else
    check_shape(data, "frame", {height + height / 2, width});
  return {static_cast<const std::uint8_t*>(data.data()), format, width, height, full_range, matrix};
}

void write_tensor(ImageKernel& kernel, const ImageView& picture, const ImagePlan& plan, const Output& out) {
  const ImageSpec& spec = kernel.spec();
  check<float>(out, "out");
  check_shape(out, "out", {1, spec.channels(), spec.height, spec.width});
  const nb::gil_scoped_release unlocked;
  kernel.tensor(picture, plan, static_cast<float*>(out.data()));
}

void write_raw(ImageKernel& kernel, const ImageView& picture, const ImagePlan& plan, const Output& out) {
  const ImageSpec& spec = kernel.spec();
  check<std::uint8_t>(out, "out");
  check_shape(out, "out", {1, spec.frame_height, spec.frame_width, spec.channels()});
  const nb::gil_scoped_release unlocked;
  kernel.raw(picture, plan, static_cast<std::uint8_t*>(out.data()));
}

void bind_image(nb::module_& m) {
  m.def(
      "image_instructions",
      [] {
        std::vector<std::string> names;
        for (const Instructions one : usable_instructions()) names.push_back(name_of(one));
        return names;
      },
      "Names of the instruction sets that image kernels can use here, best first; all give the same bits.");
  nb::class_<ImagePlan>(
      m, "ImagePlan",
      "Where the pixels of an output come from, for one geometry of a camera.\n\n"
      "An axis of the picture as it is shown:\n"
      "(camera, block, first, count, step, shift, start, length, out, cell, cell_first).\n"
      "``swap``: rows that are shown are stored columns; ``flip_*``: what is shown last is stored first.")
      .def(
          "__init__",
          [](ImagePlan* self, const AxisNumbers& rows, const AxisNumbers& columns, bool swap, bool flip_rows,
             bool flip_columns) {
            new (self) ImagePlan(axis(rows), axis(columns), swap, flip_rows, flip_columns);
          },
          nb::arg("rows"), nb::arg("columns"), nb::arg("swap"), nb::arg("flip_rows"),
          nb::arg("flip_columns"));
  nb::class_<ImageKernel>(m, "ImageKernel", "Camera frame -> network input, in one pass.")
      .def(
          "__init__",
          [](ImageKernel* self, std::tuple<std::size_t, std::size_t> frame, const std::string& color,
             std::tuple<std::size_t, std::size_t> size, std::vector<float> mean, std::vector<float> std,
             const std::string& instructions) {
            new (self) ImageKernel(
                ImageSpec{std::get<0>(frame), std::get<1>(frame), parse_color(color), std::get<0>(size),
                          std::get<1>(size), std::move(mean), std::move(std)},
                instructions.empty() ? usable_instructions().front() : instructions_named(instructions));
          },
          nb::arg("frame"), nb::arg("color"), nb::arg("size"), nb::arg("mean"), nb::arg("std"),
          nb::arg("instructions") = "",
          "``instructions``: one of ``image_instructions``, for tests and measurements; by default the "
          "first.")
      .def(
          "tensor",
          [](ImageKernel& self, const Input& data, const std::string& format, std::size_t width,
             std::size_t height, const std::string& matrix, bool full_range, const ImagePlan& plan,
             const Output& out) {
            write_tensor(self, view(data, format, width, height, matrix, full_range), plan, out);
          },
          nb::arg("data").noconvert(), nb::arg("format"), nb::arg("width"), nb::arg("height"),
          nb::arg("matrix"), nb::arg("full_range"), nb::arg("plan"), nb::arg("out").noconvert(),
          nb::sig("def tensor(self, data: numpy.typing.NDArray[numpy.uint8], format: str, width: int, "
                  "height: int, matrix: str, full_range: bool, plan: ImagePlan, "
                  "out: numpy.typing.NDArray[numpy.float32]) -> None"),
          "Write the normalised float32 tensor [1, channels, height, width].")
      .def(
          "raw",
          [](ImageKernel& self, const Input& data, const std::string& format, std::size_t width,
             std::size_t height, const std::string& matrix, bool full_range, const ImagePlan& plan,
             const Output& out) {
            write_raw(self, view(data, format, width, height, matrix, full_range), plan, out);
          },
          nb::arg("data").noconvert(), nb::arg("format"), nb::arg("width"), nb::arg("height"),
          nb::arg("matrix"), nb::arg("full_range"), nb::arg("plan"), nb::arg("out").noconvert(),
          nb::sig(
              "def raw(self, data: numpy.typing.NDArray[numpy.uint8], format: str, width: int, height: int, "
              "matrix: str, full_range: bool, plan: ImagePlan, out: numpy.typing.NDArray[numpy.uint8]) -> "
              "None"),
          "Write the uint8 frame [1, frame height, frame width, channels].")
      .def(
          "gpu_table",
          [](const ImageKernel& self, const Input& data, const std::string& format, std::size_t width,
             std::size_t height, const std::string& matrix, bool full_range, const ImagePlan& plan) {
            const cuda::PictureTable table(self, view(data, format, width, height, matrix, full_range), plan);
            const auto bytes = [](const void* from, std::size_t n) {
              return nb::bytes(static_cast<const char*>(from), n);
            };
            return nb::make_tuple(bytes(&table.picture, sizeof table.picture),
                                  bytes(table.rows.data(), table.rows.size() * sizeof(cuda::Tap)),
                                  bytes(table.columns.data(), table.columns.size() * sizeof(cuda::Tap)));
          },
          nb::arg("data").noconvert(), nb::arg("format"), nb::arg("width"), nb::arg("height"),
          nb::arg("matrix"), nb::arg("full_range"), nb::arg("plan"),
          nb::sig(
              "def gpu_table(self, data: numpy.typing.NDArray[numpy.uint8], format: str, width: int, "
              "height: int, matrix: str, full_range: bool, plan: ImagePlan) -> tuple[bytes, bytes, bytes]"),
          "Return what ``CudaKernels.picture`` needs to write the same tensor: itself, rows and columns.");
}

}  // namespace mmedge::bindings
