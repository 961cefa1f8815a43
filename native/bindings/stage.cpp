#include "graph/stage.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bindings/modules.hpp"
#include "graph/spans.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

void bind_stage(nb::module_& m) {
  nb::enum_<Life>(m, "Life", "What a stage's outputs are: see native/graph/life.hpp.")
      .value("COLD", Life::kCold)
      .value("WARM", Life::kWarm)
      .value("HIDDEN", Life::kHidden)
      .value("RENEWING", Life::kRenewing)
      .value("STALE", Life::kStale)
      .value("FAILED", Life::kFailed);
  nb::class_<Stage> stage(m, "Stage", "What a stage knows from one trigger to the next.");
  stage.attr("HEAVY_NS") = Stage::kHeavyNs;  // what a run costs that is worth a thread of its own
  stage
      .def(
          "__init__",
          [](Stage* self, std::uint64_t depends, std::uint64_t direct, std::uint64_t masks,
             std::vector<std::size_t> watches, bool follows, std::optional<std::int64_t> every_ns,
             bool differs, bool stream, bool background, std::size_t seats,
             const std::vector<const Stage*>& producers) {
            Stage::Rules rules{depends, masks,  std::move(watches), follows, every_ns, differs,
                               direct,  stream, background};
            new (self) Stage(std::move(rules), seats, producers);
          },
          nb::kw_only(), nb::arg("depends"), nb::arg("direct"), nb::arg("masks"), nb::arg("watches"),
          nb::arg("follows"), nb::arg("every_ns").none(), nb::arg("differs"), nb::arg("stream"),
          nb::arg("background"), nb::arg("seats"), nb::arg("producers"), nb::keep_alive<1, 12>(),
          "Seats are bits and numbers; ``producers`` are the stages that feed it.")
      .def("hears", &Stage::hears, nb::arg("bits"),
           "Return which of the present seats are present to it: not what a stream before it has not heard "
           "yet.")
      .def("unheard", &Stage::unheard,
           "Return the seats that feed it and of which it hears nothing yet, though they may be present.")
      .def("ran_within", &Stage::ran_within, nb::arg("from_ns"), nb::arg("until_ns"),
           "Note when the engine itself began and ended, where a run is handed to a thread of its own.")
      .def_ro("running", &Stage::running, "Whether a background run was not taken up yet.")
      .def_ro("faulty", &Stage::faulty,
              "Whether it has failed in the background, and no run has ended well since.")
      .def_ro("t_ns", &Stage::t_ns, "Capture time that its outputs belong to.")
      .def_rw("cost_ns", &Stage::cost_ns, "Moving median of the time of a run.")
      .def_ro("took_ns", &Stage::took_ns, "The time of the newest run.")
      .def_prop_ro(
          "shown", [](const Stage& self) { return is_shown(self.life); },
          "Whether its outputs are those of a run.")
      .def_rw("blank", &Stage::blank, "Whether nothing was written into its inputs since they were wiped.")
      .def_rw("life", &Stage::life, "What its outputs are.");
  nb::class_<Spans>(m, "Spans", "Which stages have run since it was last asked, and when.")
      .def(
          "__init__", [](Spans* self, const std::vector<const Stage*>& stages) { new (self) Spans(stages); },
          nb::arg("stages"), nb::keep_alive<1, 2>(), "Their places in what is told are those in ``stages``.")
      .def(
          "take",
          [](Spans& self) {
            const std::size_t found = self.take();
            return nb::bytes(reinterpret_cast<const char*>(self.numbers()),
                             found * Spans::kNumbers * sizeof(std::int64_t));
          },
          "Return five int64 of each stage that has run: its place, from when to when it was fed, and ran.");
}

}  // namespace mmedge::bindings
