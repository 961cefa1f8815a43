#include "bindings/ring_slot.hpp"

#include <nanobind/stl/string.h>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_ring_slot(nb::module_& m) {
  nb::class_<RingSlot>(m, "RingSlot",
                       "A slot that its reader holds; called, it goes back to its writer, once.\n\n"
                       "Without ``held`` its owner only knows of it, and may copy it while it lasts.")
      .def(
          "__init__",
          [](RingSlot* self, nb::object ring, std::int64_t index, std::uint64_t seq, bool held) {
            new (self) RingSlot(std::move(ring), index, seq, held, {});
          },
          nb::arg("ring"), nb::arg("index"), nb::arg("seq"), nb::kw_only(), nb::arg("held") = true,
          nb::sig("def __init__(self, ring: SlotRing, index: int, seq: int, *, held: bool = True) -> None"))
      .def("__call__", &RingSlot::give_back, "Give the slot back; idempotent.")
      .def(
          "copy",
          [](const RingSlot& self, const nb::object&, const Output& out) {
            check<std::uint8_t>(out, "out");
            const nb::gil_scoped_release unlocked;
            return self.slots->copy(self.index, self.seq, static_cast<std::uint8_t*>(out.data()), out.size());
          },
          nb::arg("data"), nb::arg("out").noconvert(),
          nb::sig("def copy(self, data: numpy.typing.NDArray[numpy.uint8], "
                  "out: numpy.typing.NDArray[numpy.uint8]) -> bool"),
          "Copy what lies in the slot to ``out``; False if it holds something else by now.")
      .def_prop_ro(
          "ring", [](const RingSlot& self) { return self.ring; },
          nb::for_getter(nb::sig("def ring(self) -> SlotRing")), "The ring that it is one of.")
      .def_ro("index", &RingSlot::index, "Its number.")
      .def_ro("seq", &RingSlot::seq, "What it holds.")
      .def_prop_rw(
          "record", [](const RingSlot& self) { return nb::bytes(self.record.data(), self.record.size()); },
          [](RingSlot& self, const nb::bytes& record) { self.record.assign(record.c_str(), record.size()); },
          "What its writer says of the frame in it, see ``FrameRecords``.");
}

}  // namespace mmedge::bindings
