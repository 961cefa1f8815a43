#include "slot_ring.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_slot_ring(nb::module_& m) {
  nb::class_<SlotRing>(
      m, "SlotRing",
      "Byte slots in memory shared with another process; each slot has one owner.\n\n"
      "A writer acquires a slot, fills its data and publishes it with a header; a reader takes it\n"
      "and releases it; neither waits. Release a slot once: then it may be another's.")
      .def(nb::init<std::int64_t, std::int64_t>(), nb::arg("slots"), nb::arg("slot_bytes"))
      .def_static("attach", &SlotRing::attach, nb::arg("fd"),
                  "Map the ring of another process; the caller keeps ``fd``.")
      .def("acquire", &SlotRing::acquire, nb::arg("steal") = false,
           "Own the free slot of oldest data to write it, and return its index; -1 if there is none.\n\n"
           "With ``steal``, if none is free, it is the oldest slot that nobody has taken, which is dropped.")
      .def(
          "data",
          [](nb::handle_t<SlotRing> self, std::int64_t index) {
            const SlotRing& ring = nb::cast<const SlotRing&>(self);
            return nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>(
                ring.data(index), {static_cast<std::size_t>(ring.slot_bytes())}, self);
          },
          nb::arg("index"), nb::sig("def data(self, index: int) -> numpy.typing.NDArray[numpy.uint8]"),
          "A slot's bytes: a writable view, yours while you own the slot; it keeps the memory mapped.")
      .def(
          "publish",
          [](SlotRing& self, std::int64_t index, const nb::bytes& header) {
            return self.publish(index, header.c_str(), header.size());
          },
          nb::arg("index"), nb::arg("header"),
          "Give an acquired slot to the reader, with up to 1024 bytes of header; return its sequence number.")
      .def("hold", &SlotRing::hold, nb::arg("index"),
           "Keep an acquired slot that is written, and return the sequence number by which others may copy "
           "it.\n\n"
           "0 if it was given back; one that was taken or held keeps its number.")
      .def(
          "take",
          [](SlotRing& self) -> nb::object {
            const std::optional<SlotRing::Taken> taken = self.take();
            if (!taken) return nb::none();
            return nb::make_tuple(taken->index, taken->seq,
                                  nb::bytes(taken->header.data(), taken->header.size()));
          },
          nb::sig("def take(self) -> tuple[int, int, bytes] | None"),
          "Own the slot that was published first: its index, sequence number and header.")
      .def("claim", &SlotRing::claim, nb::arg("index"), nb::arg("seq"),
           "Own a published slot by what it holds; False if somebody has it, or it holds something else.")
      .def("release", &SlotRing::release, nb::arg("index"),
           "Give back a slot that was taken or acquired; nothing happens to one that is free or not taken.")
      .def(
          "copy",
          [](const SlotRing& self, std::int64_t index, std::uint64_t seq, const Output& out) {
            check<std::uint8_t>(out, "out");
            const nb::gil_scoped_release unlocked;
            return self.copy(index, seq, static_cast<std::uint8_t*>(out.data()), out.size());
          },
          nb::arg("index"), nb::arg("seq"), nb::arg("out").noconvert(),
          nb::sig("def copy(self, index: int, seq: int, out: numpy.typing.NDArray[numpy.uint8]) -> bool"),
          "Copy the first len(out) bytes of a slot, whoever owns it, if they are those of ``seq``.\n\n"
          "False if they were overwritten, also meanwhile; ``out`` is undefined then.")
      .def_prop_ro("fd", &SlotRing::fd, "Descriptor of the shared memory, for ``attach`` in another process.")
      .def_prop_ro("slots", &SlotRing::slots, "How many slots there are.")
      .def_prop_ro("slot_bytes", &SlotRing::slot_bytes, "Size of each slot's data.")
      .def_prop_ro("dropped", &SlotRing::dropped,
                   "Published slots that were overwritten before anybody took them.")
      .def_prop_ro("free", &SlotRing::free, "Slots that are free now.")
      .def_prop_ro("ready", &SlotRing::ready, "Slots that are published and not taken now.");
}

}  // namespace mmedge::bindings
