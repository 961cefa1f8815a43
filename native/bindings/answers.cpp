// The answer to a trigger: the outputs read, the tasks told, the times counted, the result written.
#include <nanobind/stl/string.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bindings/attribute.hpp"
#include "bindings/interpreters.hpp"
#include "bindings/modules.hpp"
#include "bindings/pack_python.hpp"
#include "clock/monotonic.hpp"
#include "decimals.hpp"
#include "graph/stage.hpp"
#include "statistics/trigger_times.hpp"

namespace mmedge::bindings {
namespace {

constexpr std::string_view kSchema = "mmedge.result/1";
constexpr int kTimeDigits = 3;  // of ms

struct Question {
  std::string name;
  TaskReader* reader;
  Stage* stage;
  nb::object kept, runner, output;  // the reader; the stage as Python has it, and the name of its output
  nb::object told;                  // gives the output or None, where that takes more than to have run
};

class Answers {
 public:
  Answers(nb::handle tasks, TriggerTimes* times, std::int64_t wall_ns) : times_(times), wall_ns_(wall_ns) {
    for (const nb::handle each : nb::iter(tasks)) {
      const auto told = nb::cast<nb::tuple>(each);
      const nb::object reader = told[1], runner = told[2];
      questions_.push_back({nb::cast<std::string>(told[0]), nb::cast<TaskReader*>(reader),
                            attribute<Stage*>(runner, "memory"), reader, runner, told[3], told[4]});
    }
    answered_.resize(questions_.size());
  }

  // All before any is told: what is told is smoothed, and cannot be taken back.
  void read(nb::handle snapshot) {
    answered_.assign(questions_.size(), false);
    for (at_ = 0; at_ < questions_.size(); ++at_) {
      const Question& asked = questions_[at_];
      const nb::object values = values_of(asked, snapshot);
      if (values.is_none()) continue;
      asked.reader->read(values, snapshot);
      answered_[at_] = true;
    }
  }
  // Looks again which outputs are there.
  void look(nb::handle snapshot) {
    for (std::size_t at = 0; at < questions_.size(); ++at)
      answered_[at] = answered_[at] && !values_of(questions_[at], snapshot).is_none();
  }
  void reset() {
    for (const Question& asked : questions_) asked.reader->reset();
  }
  std::size_t at() const { return at_; }

  nb::tuple tell(nb::handle snapshot, bool valid, std::int64_t start_ns, std::int64_t inferred_ns,
                 std::int64_t preprocess_ns, std::int64_t infer_ns) {
    const auto time = [snapshot](const char* name) { return attribute<std::int64_t>(snapshot, name); };
    const auto t_ns = time("t_ns");
    packer_.clear();
    packer_.map(12);
    key("tasks");
    packer_.map(questions_.size());
    for (std::size_t at = 0; at < questions_.size(); ++at) {
      packer_.string(questions_[at].name);
      if (valid && answered_[at]) {
        pack(questions_[at].reader->tell(snapshot), &packer_);
      } else {
        questions_[at].reader->reset();
        pack(TaskTold{}, &packer_);
      }
    }
    const double skew_ms = attribute<double>(snapshot, "skew_ms"),
                 uncertainty_ms = attribute<double>(snapshot, "uncertainty_ms");
    const std::int64_t done_ns = now_ns();
    const TriggerTimes::Latency latency =
        times_->add({t_ns, time("deliver_ns"), start_ns, inferred_ns, done_ns, time("wait_ns"), preprocess_ns,
                     infer_ns, time("stamp_uncertainty_ns"), skew_ms, uncertainty_ms});
    key("schema");
    packer_.string(kSchema);
    key("t_ns");
    packer_.number(t_ns);
    key("unix_ns");
    packer_.number(t_ns + wall_ns_);
    key("status");
    packer_.string(valid ? "ok" : "unvalidated");
    key("present");
    pack_dict(attribute<nb::dict>(snapshot, "present"), &packer_,
              [this](nb::handle there) { packer_.boolean(nb::cast<bool>(there)); });
    key("age_ms");
    pack_dict(attribute<nb::dict>(snapshot, "age_ms"), &packer_,
              [this](nb::handle age_ms) { rounded(nb::cast<double>(age_ms)); });
    key("skew_ms");
    rounded(skew_ms);
    key("uncertainty_ms");
    rounded(uncertainty_ms);
    key("latency_ms");
    tell_latency(latency);
    key("epoch");
    pack_dict(attribute<nb::dict>(snapshot, "epoch"), &packer_,
              [this](nb::handle epoch) { packer_.number(nb::cast<std::int64_t>(epoch)); });
    key("reason");
    const nb::object reason = snapshot.attr("reason");
    reason.is_none() ? packer_.nil() : packer_.string(view_of(reason));
    return nb::make_tuple(nb::bytes(packer_.text().data(), packer_.text().size()), latency.from, done_ns);
  }

 private:
  static nb::object values_of(const Question& asked, nb::handle snapshot) {
    if (!asked.told.is_none()) return asked.told(snapshot);
    if (!is_shown(asked.stage->life)) return nb::none();
    return nb::object(asked.runner.attr("outputs"))[asked.output];  // another engine has other arrays
  }
  void key(std::string_view name) { packer_.string(name); }
  void rounded(double ms) { packer_.real(round_decimals(ms, kTimeDigits)); }
  void tell_latency(const TriggerTimes::Latency& latency) {
    const TriggerTimes::Steps steps = steps_of(latency);
    packer_.map(steps.size());
    for (const auto& [name, step_ns] : steps) {
      packer_.string(name);
      rounded(static_cast<double>(step_ns) / 1e6);
    }
  }

  std::vector<Question> questions_;
  std::vector<bool> answered_;  // whose outputs were read at the newest trigger
  TriggerTimes* times_;
  std::int64_t wall_ns_;
  std::size_t at_ = 0;
  Packer packer_;
};

}  // namespace

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_answers(nb::module_& m) {
  nb::class_<Answers>(m, "Answers", "Reads the tasks of one bundle at each trigger, and writes its result.")
      .def(nb::init<nb::handle, TriggerTimes*, std::int64_t>(), nb::arg("tasks"), nb::arg("times"),
           nb::arg("wall_ns"), nb::keep_alive<1, 3>(),
           nb::sig(
               "def __init__(self, tasks: collections.abc.Sequence[tuple[str, TaskReader, typing.Any, str, "
               "collections.abc.Callable[[typing.Any], typing.Any] | None]], times: TriggerTimes, "
               "wall_ns: int) -> None"),
           "Of each task its name, what reads it, the stage and the name of its output, and what gives that "
           "output,\n"
           "or None, at a snapshot; without, it is there once the stage has run. ``wall_ns`` is added to "
           "capture\n"
           "times to have them on the wall clock.")
      .def("read", &Answers::read, nb::arg("snapshot"), nb::sig("def read(self, snapshot: object) -> None"),
           "Take up the outputs that are there; raises what the reader of task number ``at`` raises.")
      .def("look", &Answers::look, nb::arg("snapshot"), nb::sig("def look(self, snapshot: object) -> None"),
           "Look again which of the outputs that were read are there.")
      .def("reset", &Answers::reset, "Let every task forget the past.")
      .def_prop_ro("at", &Answers::at, "The task that was read last.")
      .def(
          "tell", &Answers::tell, nb::arg("snapshot"), nb::arg("valid"), nb::arg("start_ns"),
          nb::arg("inferred_ns"), nb::arg("preprocess_ns"), nb::arg("infer_ns"),
          nb::sig("def tell(self, snapshot: object, valid: bool, start_ns: int, inferred_ns: int, "
                  "preprocess_ns: int, infer_ns: int) -> tuple[bytes, int, int]"),
          "Tell what was read, undefined where it is not ``valid``, and count the times.\n\n"
          "Returns a ``Result`` in MessagePack, from when its latency counts, and when its tasks were told.");
}

}  // namespace mmedge::bindings
