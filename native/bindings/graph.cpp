#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "graph/native_run.hpp"
#include "graph/spans.hpp"
#include "graph/stretch.hpp"

namespace mmedge::bindings {
namespace {

// A tensor that a seat feeds: what fills it where the seat is present, and where it is absent.
struct SeatTensor {
  std::size_t seat;
  nb::object fill, fill_absent, tensor;
};

// What Python does for one stage. `native` is its `run` where C++ calls that by itself.
struct StageCalls {
  std::vector<SeatTensor> tensors;
  nb::object run, infinite, absent, runner;
  NativeRun* native;
};

template <typename T>
T attribute(nb::handle object, const char* name) {
  return nb::cast<T>(object.attr(name));
}

class PythonStretch final : public StageHands {
 public:
  PythonStretch(const nb::list& works, std::size_t cores) {
    std::vector<StageWork> stages;
    for (const nb::handle work : works) {
      stages.push_back(work_of(work));
      StageCalls calls{{},
                       work.attr("run"),
                       work.attr("infinite"),
                       work.attr("absent"),
                       nb::borrow(work.attr("runner")),
                       nullptr};
      nb::try_cast(calls.run, calls.native);
      for (const nb::handle each : attribute<nb::list>(work, "seats")) {
        const auto told = nb::cast<nb::tuple>(each);
        calls.tensors.push_back(
            {nb::cast<std::size_t>(told[0]), nb::borrow(told[1]), nb::borrow(told[2]), nb::borrow(told[3])});
      }
      calls_.push_back(std::move(calls));
    }
    stretch_ = std::make_unique<Stretch>(std::move(stages), cores);
  }

  void run(Moment* moment, nb::object snapshot, nb::object read_audio, nb::object note) {
    moment_ = moment;
    snapshot_ = std::move(snapshot);
    read_audio_ = std::move(read_audio);
    note_ = std::move(note);
    struct Forget {  // pictures hang on it
      PythonStretch* self;
      ~Forget() { self->snapshot_ = self->read_audio_ = self->note_ = nb::none(); }
    } const forget{this};
    stretch_->run(moment, this);
  }

  void begin() { stretch_->begin(); }
  const Stretch& stretch() const { return *stretch_; }

  void fill(std::size_t at) override {
    for (const SeatTensor& each : calls_[at].tensors) {
      if (moment_->bits >> each.seat & 1)
        each.fill(snapshot_, each.tensor, read_audio_);
      else
        each.fill_absent(each.tensor);
    }
  }
  void fed(std::size_t at) override {
    if (!note_.is_none()) note_(calls_[at].runner, snapshot_);
  }
  void run(std::size_t at) override {
    if (calls_[at].native == nullptr) {
      calls_[at].run();
      return;
    }
    const nb::gil_scoped_release unlocked;
    calls_[at].native->run();
  }
  void infinite(std::size_t at) override { calls_[at].infinite(); }
  void absent(std::size_t at) override { calls_[at].absent(); }

 private:
  StageWork work_of(nb::handle work) {
    StageWork made;
    made.stage = &nb::cast<Stage&>(keep(work.attr("stage")));
    for (const nb::handle each : attribute<nb::list>(work, "links")) {
      const auto pair = nb::cast<nb::tuple>(each);
      const auto from = nb::cast<Input>(pair[0]);
      const auto to = nb::cast<Output>(pair[1]);
      check_contiguous(from, "an output that feeds a stage");
      check_contiguous(to, "a tensor that a stage feeds");
      if (from.dtype() != to.dtype() || from.size() != to.size())
        throw std::invalid_argument("arrays that are linked differ in dtype or size");
      made.links.push_back({from.data(), to.data(), from.nbytes()});
      inputs_.push_back(from);
      outputs_.push_back(to);
    }
    for (const nb::handle each : attribute<nb::list>(work, "rows")) {
      const auto pair = nb::cast<nb::tuple>(each);
      const auto values = nb::cast<Output>(pair[0]);
      check<float>(values, "a row");
      made.rows.push_back({static_cast<float*>(values.data()), nb::cast<bool>(pair[1])});
      outputs_.push_back(values);
    }
    for (const nb::handle each : attribute<nb::list>(work, "outputs")) {
      const auto values = nb::cast<Input>(each);
      check_contiguous(values, "an output");
      made.outputs.push_back({values.data(), values.size(), values.itemsize()});
      inputs_.push_back(values);
    }
    for (const nb::handle peer : attribute<nb::list>(work, "peers"))
      made.peers.push_back(&nb::cast<Stage&>(keep(nb::borrow(peer))));
    return made;
  }

  nb::object keep(nb::object object) {
    kept_.append(object);
    return object;
  }

  std::unique_ptr<Stretch> stretch_;
  std::vector<StageCalls> calls_;
  nb::list kept_;  // the stages
  std::vector<Input> inputs_;
  std::vector<Output> outputs_;
  Moment* moment_ = nullptr;
  nb::object snapshot_ = nb::none(), read_audio_ = nb::none(), note_ = nb::none();
};

Moment moment_of(std::size_t seats) {
  if (seats > Moment::kMaxSeats) throw std::invalid_argument("too many seats");
  Moment made;
  made.marks.resize(seats);
  made.ages_ms.resize(seats);
  return made;
}

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

std::uint64_t look(Moment& self, nb::handle snapshot) {
  const auto present = attribute<nb::dict>(snapshot, "present");
  const auto ages_ms = attribute<nb::dict>(snapshot, "age_ms");
  const auto epochs = attribute<nb::dict>(snapshot, "epoch");
  const auto frames = attribute<nb::dict>(snapshot, "frames");
  const auto sounds = attribute<nb::dict>(snapshot, "audio_end");
  const auto values = attribute<nb::dict>(snapshot, "values");
  if (present.size() != self.marks.size()) throw std::invalid_argument("a snapshot of other seats");
  self.t_ns = attribute<std::int64_t>(snapshot, "t_ns");
  self.bits = 0;
  std::size_t at = 0;
  for (const auto [seat, there] : present) {
    self.marks[at] = {};
    if (nb::cast<bool>(there)) {
      const nb::dict& map = frames.contains(seat) ? frames : sounds.contains(seat) ? sounds : values;
      const std::int64_t epoch = epochs.contains(seat) ? nb::cast<std::int64_t>(epochs[seat]) : 0;
      self.marks[at] = {true, epoch, number_of(map, seat)};
      self.bits |= std::uint64_t{1} << at;
    }
    self.ages_ms[at++] = age_of(ages_ms, seat);
  }
  return self.bits;
}

void raise_ages(const Moment& self, nb::handle snapshot) {
  auto ages_ms = attribute<nb::dict>(snapshot, "age_ms");
  std::size_t at = 0;
  for (const auto [seat, there] : attribute<nb::dict>(snapshot, "present")) {
    const double age_ms = self.ages_ms[at++];
    if (age_ms > age_of(ages_ms, seat)) ages_ms[seat] = age_ms;
  }
}

}  // namespace

void bind_graph(nb::module_& m) {
  nb::class_<Moment>(m, "Moment",
                     "What a trigger brings: which seats are present, what of them is new, how old it is.")
      .def(
          "__init__", [](Moment* self, std::size_t seats) { new (self) Moment(moment_of(seats)); },
          nb::arg("seats"))
      .def("look", &look, nb::arg("snapshot"), nb::sig("def look(self, snapshot: object) -> int"),
           "Take in a trigger; return the seats that are present, bit by bit.")
      .def("raise_ages", &raise_ages, nb::arg("snapshot"),
           nb::sig("def raise_ages(self, snapshot: object) -> None"),
           "Raise the ages of a snapshot to those of the outputs that were used.")
      .def_ro("ages_ms", &Moment::ages_ms, "The age of each seat.");
  nb::class_<Stage> stage(m, "Stage", "What a stage knows from one trigger to the next.");
  stage.attr("HEAVY_NS") = Stage::kHeavyNs;  // what a run costs that is worth a thread of its own
  stage
      .def(
          "__init__",
          [](Stage* self, std::uint64_t depends, std::uint64_t masks, std::vector<std::size_t> watches,
             bool follows, std::optional<std::int64_t> every_ns, std::size_t seats,
             const std::vector<const Stage*>& producers) {
            new (self) Stage({depends, masks, std::move(watches), follows, every_ns}, seats, producers);
          },
          nb::kw_only(), nb::arg("depends"), nb::arg("masks"), nb::arg("watches"), nb::arg("follows"),
          nb::arg("every_ns").none(), nb::arg("seats"), nb::arg("producers"), nb::keep_alive<1, 8>(),
          "Seats are bits and numbers; ``producers`` are the stages that feed it.")
      .def(
          "due",
          [](const Stage& self, const Moment& moment, std::uint64_t bits) {
            return static_cast<int>(self.due(moment, bits));
          },
          nb::arg("moment"), nb::arg("bits"),
          "Tell whether it must run: 0 no, 1 yes, 2 unless what is new is the same as before.")
      .def("is_new", &Stage::is_new, nb::arg("moment"), nb::arg("seat"),
           "Tell whether a seat has other data than it has seen.")
      .def("see", &Stage::see, nb::arg("moment"), nb::arg("bits"), "Take down what it is fed with.")
      .def("schedule", &Stage::schedule, nb::arg("t_ns"), "Take down when it must run next.")
      .def("fed", &Stage::fed, nb::arg("from_ns"), nb::arg("until_ns"),
           "Take down when its tensors were written; return how long it took.")
      .def("took", &Stage::took, nb::arg("from_ns"), nb::arg("until_ns"),
           "Take down when a run began and ended; return how long the engine took.")
      .def("ran_within", &Stage::ran_within, nb::arg("from_ns"), nb::arg("until_ns"),
           "Note when the engine itself began and ended, where a run is handed to a thread of its own.")
      .def(
          "age", [](const Stage& self, Moment& moment) { self.age(&moment); }, nb::arg("moment"),
          "Raise the ages of the seats that it depends on to that of its outputs.")
      .def("finish", &Stage::finish, "Its outputs are those of a run from now on.")
      .def("forget_seen", &Stage::forget_seen, "Run at the next trigger, whatever comes.")
      .def_prop_ro("has_seen", &Stage::has_seen, "Whether it was fed, and has not forgotten it since.")
      .def_rw("version", &Stage::version, "Rises whenever its outputs change.")
      .def_rw("t_ns", &Stage::t_ns, "Capture time that its outputs belong to.")
      .def_rw("cost_ns", &Stage::cost_ns, "Moving median of the time of a run.")
      .def_rw("took_ns", &Stage::took_ns, "The time of the newest run.")
      .def_rw("ran", &Stage::ran, "Whether it has run for this trigger.")
      .def_prop_ro(
          "shown", [](const Stage& self) { return is_shown(self.life); },
          "Whether its outputs are those of a run.")
      .def_rw("carry", &Stage::carry, "Whether its states go on from its last run.")
      .def_rw("blank", &Stage::blank, "Whether nothing was written into its inputs since they were wiped.")
      .def_prop_rw(
          "life", [](const Stage& self) { return static_cast<int>(self.life); },
          [](Stage& self, int life) {
            if (life < 0 || life > static_cast<int>(Life::kFailed))
              throw std::invalid_argument("there is no such life");
            self.life = static_cast<Life>(life);
          },
          "What its outputs are, as a number of ``mmedge.fusion.life.Life``.");
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
  nb::class_<PythonStretch>(m, "Stretch",
                            "Stages that are run as they are due, one after the other, in one call.")
      .def(nb::init<const nb::list&, std::size_t>(), nb::arg("works"), nb::arg("cores"),
           nb::sig("def __init__(self, works: list[typing.Any], cores: int) -> None"),
           "``works`` are those of ``mmedge.fusion.stretch``; heavy stages are left to threads if there are "
           "cores.")
      .def("begin", &PythonStretch::begin, "Take note of a new trigger: none of its stages has run for it.")
      .def(
          "run", nb::overload_cast<Moment*, nb::object, nb::object, nb::object>(&PythonStretch::run),
          nb::arg("moment"), nb::arg("snapshot"), nb::arg("read_audio"), nb::arg("note").none(),
          nb::sig(
              "def run(self, moment: Moment, snapshot: object, read_audio: object, note: object | None) -> "
              "None"),
          "Run what is due, and raise the moment's ages; ``note`` is called with each stage that was fed.\n\n"
          "It ends before a stage that had better run beside another one, and with whatever a stage raises.")
      .def_prop_ro(
          "at", [](const PythonStretch& self) { return self.stretch().at(); },
          "How many stages are done; the next one raised, or had better run on a thread.")
      .def_prop_ro(
          "feeding_ns", [](const PythonStretch& self) { return self.stretch().feeding_ns(); },
          "What filling tensors took.")
      .def_prop_ro(
          "running_ns", [](const PythonStretch& self) { return self.stretch().running_ns(); },
          "What engines took.");
}

}  // namespace mmedge::bindings
