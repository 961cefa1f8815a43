#include "graph/graph.hpp"

#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bindings/attribute.hpp"
#include "bindings/modules.hpp"
#include "bindings/moment.hpp"

namespace mmedge::bindings {
namespace {

// ``mmedge.fusion.hands``, for one call.
class PythonGraphHands final : public GraphHands {
 public:
  PythonGraphHands(nb::handle hands, std::uint64_t bits)
      : hands_(hands), bits_(bits), told_(PyObject_IsTrue(nb::object(hands.attr("faults")).ptr()) == 1) {}

  void recorded(std::size_t at) override {
    if (told_) hands_.attr("recorded")(at);
  }
  void beside(std::size_t at) override { hands_.attr("beside")(at); }
  std::vector<std::size_t> wait(const std::vector<std::size_t>& stages) override {
    return nb::cast<std::vector<std::size_t>>(hands_.attr("wait")(stages));
  }
  void start(std::size_t at) override { hands_.attr("start")(at); }
  void take_up(std::size_t at, bool lost) override { hands_.attr("take_up")(at, lost); }
  void lose(std::size_t at) override { hands_.attr("lose")(at, bits_); }

 private:
  nb::handle hands_;
  std::uint64_t bits_;
  bool told_;  // whether this is a replay in which something fails
};

using Places = std::vector<std::vector<std::size_t>>;

}  // namespace

void bind_graph(nb::module_& m) {
  nb::class_<Graph>(m, "Graph", "The stages of a bundle: at each trigger those that are due run, in order.")
      .def(
          "__init__",
          [](Graph* self, const std::vector<Runner*>& runners, const Places& ancestors, const Places& peers,
             std::size_t cores) {
            std::vector<GraphStage> stages;
            for (std::size_t at = 0; at < runners.size(); ++at)
              stages.push_back({runners[at], ancestors.at(at), peers.at(at)});
            new (self) Graph(std::move(stages), cores);
          },
          nb::arg("runners"), nb::arg("ancestors"), nb::arg("peers"), nb::arg("cores"),
          nb::keep_alive<1, 2>(),
          "In topological order; ``ancestors`` feed each, ``peers`` may run beside it: places of stages.")
      .def(
          "begin",
          [](Graph& self, const PythonMoment& moment, bool again, nb::handle hands) {
            PythonGraphHands called(hands, moment.bits);
            self.begin(moment, again, &called);
          },
          nb::arg("moment"), nb::arg("again"), nb::arg("hands"),
          nb::sig("def begin(self, moment: Moment, again: bool, hands: object) -> None"),
          "Begin a trigger, or go on with one ``again`` without the seats of a stage that failed.\n\n"
          "What has come from the background is taken up; ``hands`` are of ``mmedge.fusion.hands``.")
      .def(
          "run",
          [](Graph& self, PythonMoment& moment, nb::handle hands) {
            PythonGraphHands called(hands, moment.bits);
            self.run(&moment, &called);
          },
          nb::arg("moment"), nb::arg("hands"),
          nb::sig("def run(self, moment: Moment, hands: object) -> None"),
          "Run what is due and what the trigger waits for, and raise the moment's ages.\n\n"
          "Raises whatever the stage ``at`` raises; called again it goes on behind that stage.")
      .def(
          "run_late",
          [](Graph& self, const PythonMoment& moment, nb::handle hands) {
            PythonGraphHands called(hands, moment.bits);
            self.run_late(moment, &called);
          },
          nb::arg("moment"), nb::arg("hands"),
          nb::sig("def run_late(self, moment: Moment, hands: object) -> None"),
          "Start what is due in the background; raises whatever the stage ``at`` raises.")
      .def("pending", &Graph::pending, nb::arg("place"),
           "Whether a stage has no output, and runs in the background for one.")
      .def("used", &Graph::used, nb::arg("place"), "Whether outputs of a stage are used at this trigger.")
      .def_prop_ro("any_pending", &Graph::any_pending, "Whether some stage is ``pending``.")
      .def_prop_ro("at", &Graph::at, "The stage that was run last, or raised.")
      .def_prop_ro("feeding_ns", &Graph::feeding_ns, "What filling tensors took since ``begin``.")
      .def_prop_ro("running_ns", &Graph::running_ns, "What engines took since ``begin``.");
}

}  // namespace mmedge::bindings
