#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {

void bind_task_reader(nb::module_& m) {
  nb::class_<TaskReader>(m, "TaskReader", "Reads the output of one task, and tells what it says.")
      .def("read", &TaskReader::read, nb::arg("output"), nb::arg("snapshot"),
           nb::sig("def read(self, output: typing.Any, snapshot: object) -> None"),
           "Take up an output of any shape; what it took up before, and did not tell, is forgotten.")
      .def(
          "told",
          [](TaskReader& self, nb::handle snapshot) {
            Packer packer;
            pack(self.tell(snapshot), &packer);
            return nb::bytes(packer.text().data(), packer.text().size());
          },
          nb::arg("snapshot"), nb::sig("def told(self, snapshot: object) -> bytes"),
          "Return what was read, smoothed, as a ``TaskResult`` in MessagePack; once, for the smoothing moves "
          "on.")
      .def("reset", &TaskReader::reset, "Forget the past.");
}

}  // namespace mmedge::bindings
