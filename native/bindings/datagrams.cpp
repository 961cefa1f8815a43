#include "capture/datagrams.hpp"

#include <nanobind/nanobind.h>

#include "bindings/modules.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

namespace {

nb::object read(Datagrams& self, std::size_t size, int timeout_ms) {
  std::string data;
  Datagrams::Turn turn{};
  {
    const nb::gil_scoped_release unlocked;
    turn = self.read(size, timeout_ms, data);
  }
  if (turn == Datagrams::Turn::kSilent || turn == Datagrams::Turn::kEnded) return nb::none();
  return nb::bytes(data.data(), data.size());
}

}  // namespace

void bind_datagrams(nb::module_& m) {
  nb::class_<Programme>(m, "Programme", "Which tracks a transport stream says that it has.")
      .def(nb::init<>())
      .def(
          "changed",
          [](Programme& self, const nb::bytes& data) {
            return self.changed(reinterpret_cast<const std::uint8_t*>(data.c_str()), data.size());
          },
          nb::arg("data"), "Take whole packets; tell whether a table differs from what it was.");
  nb::class_<Datagrams>(m, "Datagrams", "UDP as a stream of bytes, received by a thread without Python.")
      .def(nb::init<int>(), nb::arg("fd"), "From this socket; the caller keeps ``fd``.")
      .def("begin", &Datagrams::begin, "Read what comes next as a stream of its own.")
      .def("read", &read, nb::arg("size"), nb::arg("timeout_ms"),
           nb::sig("def read(self, size: int, timeout_ms: int) -> bytes | None"),
           "Wait for bytes and return those that are there, at most ``size``; none of them (b\"\") when they "
           "belong\n"
           "to another programme, None when nothing came in time or it was ended.")
      .def("end", &Datagrams::end, nb::call_guard<nb::gil_scoped_release>(),
           "Give the port back and wake who reads; idempotent.")
      .def_prop_ro("lost", &Datagrams::lost, "Datagrams that found no room.");
}

}  // namespace mmedge::bindings
