#include "graph/runner.hpp"

#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/attribute.hpp"
#include "bindings/modules.hpp"
#include "bindings/moment.hpp"
#include "graph/native_run.hpp"
#include "graph/stream.hpp"

namespace mmedge::bindings {
namespace {

// The arrays of a stage; `odd` does what it has to with those that cannot be copied byte by byte.
class PythonTensors final : public Tensors {
 public:
  explicit PythonTensors(nb::handle work) : odd_(work.attr("odd")) {
    links = pairs(work, "links");
    states = pairs(work, "states");
    constants = pairs(work, "constants");
    copies = pairs(work, "copies");
    stateful = attribute<bool>(work, "stateful");
    for (const nb::handle each : attribute<nb::list>(work, "rows")) {
      const auto pair = nb::cast<nb::tuple>(each);
      const auto values = nb::cast<Output>(pair[0]);
      check<float>(values, "a row");
      rows.push_back({static_cast<float*>(values.data()), nb::cast<bool>(pair[1])});
      kept_.push_back(values);
    }
    for (const nb::handle each : attribute<nb::list>(work, "shown")) {
      const auto values = nb::cast<Output>(each);
      check_contiguous(values, "an output");
      shown.push_back({values.data(), values.nbytes()});
      kept_.push_back(values);
    }
    for (const nb::handle each : attribute<nb::list>(work, "outputs")) {
      const auto values = nb::cast<Input>(each);
      check_contiguous(values, "an output");
      outputs.push_back({values.data(), values.size(), values.itemsize()});
      read_.push_back(values);
    }
  }

  void feed(const Moment& moment, std::uint64_t bits) override {
    Tensors::feed(moment, bits);
    if (!odd_.is_none()) odd_.attr("feed")(moment.ages_ms, bits);
  }
  bool differ() const override {
    return (!odd_.is_none() && nb::cast<bool>(odd_.attr("linked"))) || Tensors::differ();
  }
  void carry() override {
    Tensors::carry();
    call("carry");
  }
  void forget() override {
    Tensors::forget();
    call("forget");
  }
  void publish() override {
    Tensors::publish();
    call("publish");
  }
  void clear() override {
    Tensors::clear();
    call("clear");
  }

 private:
  void call(const char* name) {
    if (!odd_.is_none()) odd_.attr(name)();
  }

  std::vector<Link> pairs(nb::handle work, const char* name) {
    std::vector<Link> found;
    for (const nb::handle each : attribute<nb::list>(work, name)) {
      const auto pair = nb::cast<nb::tuple>(each);
      const auto from = nb::cast<Input>(pair[0]);
      const auto to = nb::cast<Output>(pair[1]);
      check_contiguous(from, "an array that is copied");
      check_contiguous(to, "an array that is copied to");
      if (from.dtype() != to.dtype() || from.size() != to.size())
        throw std::invalid_argument("arrays that are copied differ in dtype or size");
      found.push_back({from.data(), to.data(), from.nbytes()});
      read_.push_back(from);
      kept_.push_back(to);
    }
    return found;
  }

  nb::object odd_;
  std::vector<Input> read_;
  std::vector<Output> kept_;
};

// A tensor that a seat feeds: what fills it where the seat is present, and where it is absent.
struct SeatTensor {
  std::size_t seat;
  nb::object fill, fill_absent, tensor;
};

// What Python does for a stage. Its engine's run is native where C++ calls that by itself.
class PythonHands final : public StageHands {
 public:
  explicit PythonHands(nb::handle work)
      : name_(work.attr("name")),
        run_(work.attr("run")),
        infinite_(work.attr("infinite")),
        change_(work.attr("change")) {
    nb::try_cast(run_, native_);
    for (const nb::handle each : attribute<nb::list>(work, "seats")) {
      const auto told = nb::cast<nb::tuple>(each);
      tensors_.push_back(
          {nb::cast<std::size_t>(told[0]), nb::borrow(told[1]), nb::borrow(told[2]), nb::borrow(told[3])});
    }
    for (const nb::handle each : attribute<nb::list>(work, "sounds")) {
      const auto told = nb::cast<nb::tuple>(each);
      sounds_.push_back({0, nb::borrow(told[0]), nb::none(), nb::borrow(told[1])});
    }
  }

  void fill(const Moment& moment) override {
    const auto& told = static_cast<const PythonMoment&>(moment);
    for (const SeatTensor& each : tensors_) {
      if (moment.bits >> each.seat & 1)
        each.fill(told.snapshot, each.tensor, told.read_audio);
      else
        each.fill_absent(each.tensor);
    }
    if (!change_.is_none()) change_.attr("note")(told.snapshot);
  }
  void hear(const Moment& moment, std::int64_t end) override {
    const auto& told = static_cast<const PythonMoment&>(moment);
    for (const SeatTensor& each : sounds_) each.fill(told.snapshot, each.tensor, told.read_audio, end);
  }
  bool differs(const Moment& moment) override {
    return !change_.is_none() &&
           nb::cast<bool>(change_.attr("differs")(static_cast<const PythonMoment&>(moment).snapshot));
  }
  void fed(const Moment& moment) override {
    const auto& told = static_cast<const PythonMoment&>(moment);
    if (!told.note.is_none()) told.note(name_, told.snapshot);
  }
  void run() override {
    if (native_ == nullptr) {
      run_();
      return;
    }
    const nb::gil_scoped_release unlocked;
    native_->run();
  }
  void infinite() override { infinite_(); }

 private:
  nb::object name_, run_, infinite_, change_;
  NativeRun* native_ = nullptr;
  std::vector<SeatTensor> tensors_, sounds_;
};

void serve(Runner& self, nb::handle work) {
  self.serve(std::make_unique<PythonTensors>(work), std::make_unique<PythonHands>(work));
}

}  // namespace

void bind_runner(nb::module_& m) {
  nb::class_<Runner>(m, "Runner", "Feeds and runs one stage; ``serve`` comes before everything else.")
      .def(nb::init<Stage*>(), nb::arg("stage"), nb::keep_alive<1, 2>())
      .def("serve", &serve, nb::arg("work"), nb::sig("def serve(self, work: typing.Any) -> None"),
           "Take an engine, or another one between two runs: ``work`` is of ``mmedge.fusion.work``.")
      .def(
          "feed",
          [](Runner& self, PythonMoment& moment, std::uint64_t bits) {
            self.feed(moment, bits);
            return self.stage().feed_ns;
          },
          nb::arg("moment"), nb::arg("bits"), "Write every input; return how long that took, in ns.")
      .def("execute", &Runner::execute, "Run the engine on what was fed; any thread may do it.")
      .def("finish", &Runner::finish, "Its outputs are those of the run from now on.")
      .def("take_up", &Runner::take_up, nb::arg("failed"), "Take up a background run that has ended.")
      .def("reset", &Runner::reset, "Forget outputs and states; those of a background run are thrown away.")
      .def("fail", &Runner::fail, "Forget everything after a failure.")
      .def("discard", &Runner::discard, "Forget a run that failed beside another: it is tried again.");
  nb::class_<StreamRunner, Runner>(m, "StreamRunner",
                                   "Feeds and runs a stage that hears every step of a sound.")
      .def(
          "__init__",
          [](StreamRunner* self, Stage* stage, std::size_t seat, std::int64_t step, std::int64_t window,
             std::int64_t rate_hz) { new (self) StreamRunner(stage, {seat, step, window, rate_hz}); },
          nb::arg("stage"), nb::kw_only(), nb::arg("seat"), nb::arg("step"), nb::arg("window"),
          nb::arg("rate_hz"), nb::keep_alive<1, 2>())
      .def("join", &StreamRunner::join, "Begin with the newest step: it came into a run that goes on.")
      .def_prop_ro("overruns", &StreamRunner::overruns,
                   "How often sound was overwritten before it was heard.");
}

}  // namespace mmedge::bindings
