// An image seat: a camera's frames, as Python has them, into its tensor.
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings/attribute.hpp"
#include "bindings/image_view.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

class PictureSeat {
 public:
  PictureSeat(nb::object kernel, nb::object plan, nb::object refuse, bool raw)
      : kept_(std::move(kernel)),
        kernel_(nb::cast<ImageKernel&>(kept_)),
        plan_(std::move(plan)),
        refuse_(std::move(refuse)),
        raw_(raw) {}

  void write(nb::handle frame, nb::handle out) {
    const Refusing refusing{refuse_, frame};
    refusing.run([&] {
      const Known known =
          look(frame);  // its own: another thread may bring pictures of another geometry meanwhile
      const ImageView picture = view_of_picture(nb::cast<Input>(frame.attr("data"), false), known.format,
                                                known.width, known.height, known.matrix, known.full_range);
      (raw_ ? write_raw : write_tensor)(kernel_, picture, nb::cast<const ImagePlan&>(known.plan),
                                        nb::cast<Output>(out, false));
    });
  }
  nb::object plan_of(nb::handle frame) {
    nb::object plan;
    const Refusing refusing{refuse_, frame};
    refusing.run([&] { plan = look(frame).plan; });
    return plan;
  }

 private:
  // What pictures of one camera have in common.
  struct Known {
    std::size_t height, width;
    nb::object format_name, description, plan;
    PixelFormat format;
    Matrix matrix;
    bool full_range;
  };

  // Tells Python what was wrong with a frame: by a text, or by None where the binding's own would help no
  // user.
  struct Refusing {
    template <typename Run>
    void run(Run run) const {
      try {
        run();
      } catch (const std::invalid_argument& error) {
        refuse(frame, error.what());
      } catch (const nb::cast_error&) {
        refuse(frame, nb::none());
      } catch (nb::python_error& error) {
        if (error.matches(PyExc_ValueError))
          refuse(frame, nb::str(error.value()));
        else if (error.matches(PyExc_TypeError))
          refuse(frame, nb::none());
        throw;
      }
    }

    nb::handle refuse, frame;
  };

  Known look(nb::handle frame) {
    const auto height = attribute<std::int64_t>(frame, "height"),
               width = attribute<std::int64_t>(frame, "width");
    const nb::object format = frame.attr("format"), description = frame.attr("description");
    const auto is = [&](const nb::object& known, const nb::object& told) {
      return known.is(told) || known.equal(told);
    };
    if (known_ && static_cast<std::int64_t>(known_->height) == height &&
        static_cast<std::int64_t>(known_->width) == width && is(known_->format_name, format) &&
        is(known_->description, description))
      return *known_;
    const nb::object plan = plan_(frame);
    known_ = Known{static_cast<std::size_t>(height),
                   static_cast<std::size_t>(width),
                   format,
                   description,
                   plan,
                   parse_format(nb::cast<std::string>(format)),
                   parse_matrix(attribute<std::string>(description, "matrix")),
                   attribute<bool>(description, "full_range")};
    return *known_;
  }

  nb::object kept_;
  ImageKernel& kernel_;
  nb::object plan_, refuse_;
  bool raw_;
  std::optional<Known> known_;
};

// What a stage calls for the frame of a trigger.
struct PictureFill {
  nb::str name;
  nb::object kept;
  PictureSeat& seat;

  void fill(nb::handle snapshot, nb::handle out, nb::handle /*read_audio*/, nb::handle /*end*/) {
    seat.write(nb::object(nb::object(snapshot.attr("frames"))[name]), out);
  }
};

}  // namespace

void bind_picture_seat(nb::module_& m) {
  nb::class_<PictureSeat>(m, "PictureSeat", "Camera frames of any geometry -> the tensor of an image seat.")
      .def(nb::init<nb::object, nb::object, nb::object, bool>(), nb::arg("kernel"), nb::kw_only(),
           nb::arg("plan"), nb::arg("refuse"), nb::arg("raw"),
           nb::sig("def __init__(self, kernel: ImageKernel, *, "
                   "plan: collections.abc.Callable[[typing.Any], ImagePlan], "
                   "refuse: collections.abc.Callable[[typing.Any, str | None], object], raw: bool) -> None"),
           "``plan`` makes that of a frame whose geometry is new; ``refuse`` raises for a frame, and why it "
           "is none.\n"
           "``raw``: uint8 [1, frame height, frame width, channels], else float32 [1, channels, height, "
           "width].")
      .def("__call__", &PictureSeat::write, nb::arg("frame"), nb::arg("out"),
           nb::sig("def __call__(self, frame: typing.Any, out: numpy.typing.NDArray[typing.Any]) -> None"),
           "Write a frame.")
      .def("plan_of", &PictureSeat::plan_of, nb::arg("frame"),
           nb::sig("def plan_of(self, frame: typing.Any) -> ImagePlan"), "Return the plan of a frame.");
  nb::class_<PictureFill>(m, "PictureFill", "Writes the frame of a trigger: the ``fill`` of an image feed.")
      .def(
          "__init__",
          [](PictureFill* self, nb::str name, nb::object seat) {
            PictureSeat& its = nb::cast<PictureSeat&>(seat);
            new (self) PictureFill{std::move(name), std::move(seat), its};
          },
          nb::arg("name"), nb::arg("seat"),
          nb::sig("def __init__(self, name: str, seat: PictureSeat) -> None"))
      .def("__call__", &PictureFill::fill, nb::arg("snapshot"), nb::arg("out"), nb::arg("read_audio"),
           nb::arg("end") = nb::none(),
           nb::sig("def __call__(self, snapshot: typing.Any, out: numpy.typing.NDArray[typing.Any], "
                   "read_audio: typing.Any, end: int | None = None) -> None"),
           "Write the frame of the seat into ``out``.");
}

}  // namespace mmedge::bindings
