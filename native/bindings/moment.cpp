#include "bindings/moment.hpp"

#include <stdexcept>
#include <utility>

#include "bindings/attribute.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

// Of a value of `map`, the attribute `seq`, or the value itself where it is a number.
std::int64_t number_of(nb::handle map, nb::handle seat) {
  const nb::object found = map[seat];
  return nb::cast<std::int64_t>(PyLong_Check(found.ptr()) ? found : nb::object(found.attr("seq")));
}

double age_of(nb::handle ages_ms, nb::handle seat) {
  PyObject* const found = PyDict_GetItemWithError(ages_ms.ptr(), seat.ptr());
  if (found == nullptr && PyErr_Occurred()) nb::raise_python_error();
  return found == nullptr ? 0.0 : nb::cast<double>(nb::handle(found));
}

// One that is not told begins, and can be read, from where it is cut.
Sound sound_of(std::int64_t end, const nb::dict& spans, nb::handle seat) {
  if (!spans.contains(seat)) return {end, end, end};
  const auto span = nb::cast<nb::tuple>(spans[seat]);
  return {end, nb::cast<std::int64_t>(span[0]), nb::cast<std::int64_t>(span[1])};
}

std::uint64_t look(PythonMoment& self, nb::object snapshot, nb::object read_audio, nb::object note) {
  const auto present = attribute<nb::dict>(snapshot, "present");
  const auto ages_ms = attribute<nb::dict>(snapshot, "age_ms");
  const auto epochs = attribute<nb::dict>(snapshot, "epoch");
  const auto frames = attribute<nb::dict>(snapshot, "frames");
  const auto sounds = attribute<nb::dict>(snapshot, "audio_end");
  const auto spans = attribute<nb::dict>(snapshot, "audio_span");
  const auto values = attribute<nb::dict>(snapshot, "values");
  if (present.size() != self.marks.size()) throw std::invalid_argument("a snapshot of other seats");
  self.t_ns = attribute<std::int64_t>(snapshot, "t_ns");
  self.bits = self.values = self.dated = 0;
  std::size_t at = 0;
  for (const auto [seat, there] : present) {
    const std::uint64_t bit = std::uint64_t{1} << at;
    self.marks[at] = {};
    self.epochs[at] = 0;
    if (epochs.contains(seat)) {
      self.epochs[at] = nb::cast<std::int64_t>(epochs[seat]);
      self.dated |= bit;
    }
    if (values.contains(seat)) self.values |= bit;
    if (nb::cast<bool>(there)) {
      const bool heard = sounds.contains(seat);
      const nb::dict& map = heard ? sounds : frames.contains(seat) ? frames : values;
      self.marks[at] = {true, self.epochs[at], number_of(map, seat)};
      if (heard) self.sounds[at] = sound_of(self.marks[at].number, spans, seat);
      self.bits |= bit;
    }
    self.ages_ms[at++] = age_of(ages_ms, seat);
  }
  self.snapshot = std::move(snapshot);
  self.read_audio = std::move(read_audio);
  self.note = std::move(note);
  return self.bits;
}

void raise_ages(const PythonMoment& self, nb::handle snapshot) {
  auto ages_ms = attribute<nb::dict>(snapshot, "age_ms");
  std::size_t at = 0;
  for (const auto [seat, there] : attribute<nb::dict>(snapshot, "present")) {
    const double age_ms = self.ages_ms[at++];
    if (age_ms > age_of(ages_ms, seat)) ages_ms[seat] = age_ms;
  }
}

}  // namespace

void bind_moment(nb::module_& m) {
  nb::class_<PythonMoment>(
      m, "Moment", "What a trigger brings: which seats are present, what of them is new, how old it is.")
      .def(nb::init<std::size_t>(), nb::arg("seats"))
      .def("look", &look, nb::arg("snapshot"), nb::arg("read_audio"), nb::arg("note").none(),
           nb::sig("def look(self, snapshot: object, read_audio: object, note: object | None) -> int"),
           "Take in a trigger; return the seats that are present, bit by bit.\n\n"
           "It keeps all three; ``note`` is called with the name of each stage that was fed, and the "
           "snapshot.")
      .def("raise_ages", &raise_ages, nb::arg("snapshot"),
           nb::sig("def raise_ages(self, snapshot: object) -> None"),
           "Raise the ages of a snapshot to those of the outputs that were used.");
}

}  // namespace mmedge::bindings
