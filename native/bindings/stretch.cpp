#include "graph/stretch.hpp"

#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bindings/modules.hpp"
#include "bindings/moment.hpp"

namespace mmedge::bindings {

void bind_stretch(nb::module_& m) {
  nb::class_<Stretch>(m, "Stretch", "Stages that are run as they are due, one after the other, in one call.")
      .def(
          "__init__",
          [](Stretch* self, const std::vector<Runner*>& runners,
             const std::vector<std::vector<const Stage*>>& peers, std::size_t cores) {
            std::vector<StretchStage> stages;
            for (std::size_t at = 0; at < runners.size(); ++at) stages.push_back({runners[at], peers.at(at)});
            new (self) Stretch(std::move(stages), cores);
          },
          nb::arg("runners"), nb::arg("peers"), nb::arg("cores"), nb::keep_alive<1, 2>(),
          nb::keep_alive<1, 3>(),
          "``peers`` may run beside each; heavy stages are left to threads if there are cores.")
      .def("begin", &Stretch::begin, "Take note of a new trigger: none of its stages has run for it.")
      .def(
          "run", [](Stretch& self, PythonMoment& moment) { self.run(&moment); }, nb::arg("moment"),
          "Run what is due, and raise the moment's ages.\n\n"
          "It ends before a stage that had better run beside another one, and with whatever a stage raises.")
      .def_prop_ro("at", &Stretch::at, "How many stages are done; the next one raised, or is for a thread.")
      .def_prop_ro("feeding_ns", &Stretch::feeding_ns, "What filling tensors took.")
      .def_prop_ro("running_ns", &Stretch::running_ns, "What engines took.");
}

}  // namespace mmedge::bindings
