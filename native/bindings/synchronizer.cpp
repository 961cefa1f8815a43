#include "sync/synchronizer.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "bindings/nanoseconds.hpp"
#include "sound_records.hpp"

namespace mmedge::bindings {
namespace {

using Span = std::optional<Nanoseconds>;

std::optional<std::int64_t> span(const Span& value) {
  return value ? std::optional<std::int64_t>(value->value) : std::nullopt;
}

StreamRules rules(bool live, const std::string& policy, const Span& max_age_ns) {
  StreamRules made;
  made.live = live;
  made.max_age_ns = span(max_age_ns);
  if (policy == "zero")
    made.policy = Policy::zero;
  else if (policy == "hold")
    made.policy = Policy::hold;
  else if (policy == "skip")
    made.policy = Policy::skip;
  else if (policy == "fail")
    made.policy = Policy::fail;
  else
    throw std::invalid_argument("unknown policy '" + policy + "'; known: zero, hold, skip, fail");
  return made;
}

const char* name_of(Why why) {
  switch (why) {
    case kPresent:
      return "present";
    case kEnded:
      return "ended";
    case kNothingYet:
      return "nothing yet";
    case kNotInTime:
      return "late";
    case kTooOld:
      return "old";
    case kFrozen:
      return "frozen";
    case kDamaged:
      return "damaged";
    case kBehind:
      return "behind";
    case kAhead:
      return "ahead";
    case kNoSound:
      return "no sound";
    case kOverwritten:
      return "overwritten";
    case kTakenBack:
      return "taken back";
  }
  return "";
}

const char* name_of(Cause cause) {
  switch (cause) {
    case kTaken:
      return "taken";
    case kOldEpoch:
      return "old_epoch";
    case kTimeBackwards:
      return "time_backwards";
    case kOverrun:
      return "overrun";
    case kLate:
      return "late";
    case kSyncOverflow:
      return "sync_overflow";
    case kSkip:
      return "skip";
  }
  return "";
}

nb::object told(const Cut& cut) {
  if (cut.why != kPresent) return nb::make_tuple(name_of(cut.why), cut.why_ns);
  return nb::make_tuple(cut.slot, cut.epoch, cut.age_ns, cut.end, cut.first, cut.oldest);
}

nb::object told(const Cuts& cuts) {
  nb::list inputs;
  for (const Cut& cut : cuts.inputs) inputs.append(told(cut));
  return nb::make_tuple(cuts.t_ns, cuts.seq, cuts.deliver_ns, cuts.wait_ns, cuts.on_frame,
                        cuts.uncertainty_ns, cuts.others_uncertainty_ns, cuts.skew_ns, inputs);
}

nb::list unwanted(Synchronizer& sync) {
  nb::list slots;
  sync.drain([&](Slot slot) { slots.append(slot); });
  return slots;
}

}  // namespace

// Calls of a few microseconds keep the GIL: to get it back can take milliseconds. So any thread may ask.
void bind_synchronizer(nb::module_& m) {
  nb::class_<Synchronizer>(
      m, "Synchronizer",
      "Packets in, cuts out, on capture time alone; it reads no clock. Times are ns.\n\n"
      "Inputs are numbered in the order in which they are added. A payload stays with the caller, under the "
      "slot that\n"
      "``push_frame`` or ``push_value`` returned (-1: it is not kept), until ``drain`` names that slot.")
      .def(
          "__init__",
          [](Synchronizer* self, Nanoseconds started_ns, Nanoseconds wait_ns, Nanoseconds hold_ns,
             Nanoseconds every_ns, bool timer, bool latest, bool lossless) {
            new (self) Synchronizer({started_ns, wait_ns, hold_ns, every_ns, timer, latest, lossless});
          },
          nb::kw_only(), nb::arg("started_ns"), nb::arg("wait_ns"), nb::arg("hold_ns"), nb::arg("every_ns"),
          nb::arg("timer"), nb::arg("latest"), nb::arg("lossless"))
      .def(
          "add_image",
          [](Synchronizer& self, bool live, const std::string& policy, const Span& max_age_ns, bool trigger) {
            return self.add_image(rules(live, policy, max_age_ns), trigger);
          },
          nb::kw_only(), nb::arg("live"), nb::arg("policy"), nb::arg("max_age_ns").none(), nb::arg("trigger"),
          "Add an image input; return its number.")
      .def(
          "add_audio",
          [](Synchronizer& self, bool live, const std::string& policy, const Span& max_age_ns, bool trigger,
             std::int64_t rate_hz, std::int64_t window, Nanoseconds ahead_ns, Nanoseconds reserve_ns) {
            return self.add_audio(rules(live, policy, max_age_ns), {rate_hz, window, ahead_ns, reserve_ns},
                                  trigger);
          },
          nb::kw_only(), nb::arg("live"), nb::arg("policy"), nb::arg("max_age_ns").none(), nb::arg("trigger"),
          nb::arg("rate_hz"), nb::arg("window"), nb::arg("ahead_ns"), nb::arg("reserve_ns"),
          "Add an audio input, whose window of samples ends ``ahead_ns`` after the trigger; return its "
          "number.")
      .def(
          "add_value",
          [](Synchronizer& self, bool live, const std::string& policy, const Span& max_age_ns, bool trigger,
             const Span& ttl_ns, const Span& period_ns, bool paced) {
            return self.add_value(rules(live, policy, max_age_ns), {span(ttl_ns), span(period_ns), paced},
                                  trigger);
          },
          nb::kw_only(), nb::arg("live"), nb::arg("policy"), nb::arg("max_age_ns").none(), nb::arg("trigger"),
          nb::arg("ttl_ns").none(), nb::arg("period_ns").none(), nb::arg("paced"),
          "Add an input of texts or arrays; return its number.")
      .def(
          "push_frame",
          [](Synchronizer& self, std::size_t input, Nanoseconds epoch, Nanoseconds capture_ns,
             Nanoseconds arrive_ns, Nanoseconds uncertainty_ns, Nanoseconds unchanged_ns, bool damaged) {
            return self.push_frame(input, {epoch, capture_ns, arrive_ns, uncertainty_ns}, unchanged_ns,
                                   damaged);
          },
          nb::arg("input"), nb::arg("epoch"), nb::arg("capture_ns"), nb::arg("arrive_ns"),
          nb::arg("uncertainty_ns"), nb::arg("unchanged_ns"), nb::arg("damaged"),
          "Take a frame; return the slot of its payload.")
      .def(
          "push_value",
          [](Synchronizer& self, std::size_t input, Nanoseconds epoch, Nanoseconds capture_ns,
             Nanoseconds arrive_ns, Nanoseconds uncertainty_ns, bool blank) {
            return self.push_value(input, {epoch, capture_ns, arrive_ns, uncertainty_ns}, blank);
          },
          nb::arg("input"), nb::arg("epoch"), nb::arg("capture_ns"), nb::arg("arrive_ns"),
          nb::arg("uncertainty_ns"), nb::arg("blank"),
          "Take a text or an array; return the slot of its payload.")
      .def(
          "push_block",
          [](Synchronizer& self, std::size_t input, Nanoseconds epoch, Nanoseconds capture_ns,
             Nanoseconds arrive_ns, Nanoseconds uncertainty_ns, const Input& samples, std::int64_t lost) {
            check<float>(samples, "samples");
            if (samples.ndim() != 1) throw std::invalid_argument("samples must have one dimension");
            self.push_block(input, {epoch, capture_ns, arrive_ns, uncertainty_ns},
                            static_cast<const float*>(samples.data()), samples.shape(0), lost);
          },
          nb::arg("input"), nb::arg("epoch"), nb::arg("capture_ns"), nb::arg("arrive_ns"),
          nb::arg("uncertainty_ns"), nb::arg("samples").noconvert(), nb::arg("lost"),
          nb::sig("def push_block(self, input: int, epoch: int, capture_ns: int, arrive_ns: int, "
                  "uncertainty_ns: int, "
                  "samples: numpy.typing.NDArray[numpy.float32], lost: int) -> None"),
          "Take a block [n], before which ``lost`` samples are missing.")
      .def(
          "push_run",
          [](Synchronizer& self, std::size_t input, const SoundRun& run) {
            for (const SoundRun::Block& block : run.blocks()) {
              const SoundRecord& said = block.record;
              self.push_block(input, {said.epoch, said.capture_ns, said.arrive_ns, said.uncertainty_ns},
                              run.samples(block), block.samples, block.lost);
            }
          },
          nb::arg("input"), nb::arg("run"), "Take the blocks of a run, as ``push_block`` does each.")
      .def(
          "push_arrival",
          [](Synchronizer& self, std::size_t input, Nanoseconds epoch, Nanoseconds capture_ns,
             Nanoseconds arrive_ns, Nanoseconds uncertainty_ns) {
            self.push_arrival(input, {epoch, capture_ns, arrive_ns, uncertainty_ns});
          },
          nb::arg("input"), nb::arg("epoch"), nb::arg("capture_ns"), nb::arg("arrive_ns"),
          nb::arg("uncertainty_ns"), "Take the times of a packet that made room for a newer one.")
      .def(
          "push_end",
          [](Synchronizer& self, std::size_t input, Nanoseconds epoch, Nanoseconds capture_ns,
             Nanoseconds arrive_ns, Nanoseconds uncertainty_ns, bool with_reason) {
            return self.push_end(input, {epoch, capture_ns, arrive_ns, uncertainty_ns}, with_reason);
          },
          nb::arg("input"), nb::arg("epoch"), nb::arg("capture_ns"), nb::arg("arrive_ns"),
          nb::arg("uncertainty_ns"), nb::arg("with_reason"),
          "Note that the source has nothing more to say; False: it is an old one's end.")
      .def(
          "advance", [](Synchronizer& self, Nanoseconds now_ns) { self.advance(now_ns); }, nb::arg("now_ns"),
          "Tell the time.")
      .def("next_deadline_ns", &Synchronizer::next_deadline_ns,
           "Return when ``poll`` must be called even if nothing arrives, or None.")
      .def(
          "poll",
          [](Synchronizer& self) {
            nb::list ready;
            const std::size_t n = self.poll();
            for (std::size_t i = 0; i < n; ++i) ready.append(told(self.ready(i)));
            return ready;
          },
          nb::sig("def poll(self) -> list[tuple[int, int, int, int, bool, int, int, int, "
                  "list[tuple[str, int] | tuple[int, int, int, int, int, int]]]]"),
          "Return what is ready: t_ns, seq, deliver_ns, wait_ns, whether a frame made it, uncertainty_ns of "
          "the\n"
          "trigger and of the other inputs, skew_ns, and of each input why it is absent and by how many ns, "
          "or slot,\n"
          "epoch, age_ns, and of sound the index after the last sample, of the epoch's first, of the oldest "
          "kept.")
      .def("trim", &Synchronizer::trim,
           "Let go of what neither a trigger nor what was polled so far can want.")
      .def("close", &Synchronizer::close, "Let go of everything.")
      .def(
          "drain", &unwanted, nb::sig("def drain(self) -> list[int]"),
          "Return the slots of which nobody wants the payload any more, each once; then they are used again.")
      .def(
          "starting",
          [](const Synchronizer& self, std::size_t input, Nanoseconds t_ns) {
            return self.starting(input, t_ns);
          },
          nb::arg("input"), nb::arg("t_ns"), "Whether nothing can be there at ``t_ns`` yet.")
      .def(
          "silence_ns",
          [](const Synchronizer& self, std::size_t input, Nanoseconds now_ns) {
            return self.silence_ns(input, now_ns);
          },
          nb::arg("input"), nb::arg("now_ns"),
          "For how long an input has given nothing, None while it is alive or if it keeps no rate.")
      .def(
          "steady_ns",
          [](const Synchronizer& self, std::size_t input, Nanoseconds now_ns) {
            return self.steady(input, now_ns) ? std::optional(self.stream(input).period_ns()) : std::nullopt;
          },
          nb::arg("input"), nb::arg("now_ns"),
          "The period of an input that is live, keeps a rate and was alive at ``now_ns``, or None.")
      .def(
          "ahead_ns",
          [](const Synchronizer& self, Nanoseconds capture_ns, const std::vector<std::size_t>& others) {
            return self.ahead_ns(capture_ns, others);
          },
          nb::arg("capture_ns"), nb::arg("others"),
          "How far ``capture_ns`` is ahead of the slowest of ``others``.")
      .def(
          "ring",
          [](const Synchronizer& self, std::size_t input) -> const SampleRing& {
            return self.sound(input).ring();
          },
          nb::arg("input"), nb::rv_policy::reference_internal, "The samples of an audio input.")
      .def(
          "end_ns",
          [](const Synchronizer& self, std::size_t input, std::int64_t end) {
            return self.sound(input).end_ns(end);
          },
          nb::arg("input"), nb::arg("end"), "When the instant before sample ``end`` was sensed.")
      .def(
          "lost", [](const Synchronizer& self, std::size_t input) { return self.sound(input).lost(); },
          nb::arg("input"), "The lost samples of an audio input.")
      .def_prop_ro("triggers", &Synchronizer::triggers, "How many triggers were made.")
      .def_prop_ro("period_ns", &Synchronizer::period_ns, "From one trigger to the next, as measured.")
      .def_prop_ro("pending", &Synchronizer::pending, "How many triggers wait.")
      .def_prop_ro("finished", &Synchronizer::finished, "Whether no trigger waits and none can come.")
      .def_prop_ro(
          "drops",
          [](const Synchronizer& self) {
            nb::list counts;
            for (const auto& [cause, n] : self.drops().counts()) {
              const int input = cause < kSkip ? -1 : cause - kSkip;
              counts.append(
                  nb::make_tuple(input, name_of(cause < kSkip ? static_cast<Cause>(cause) : kSkip), n));
            }
            return counts;
          },
          nb::sig("def drops(self) -> list[tuple[int, str, int]]"),
          "Triggers that became nothing: the input that let them skip or -1, cause, count, as they first "
          "occurred.")
      .def_prop_ro(
          "refused",
          [](const Synchronizer& self) {
            nb::list counts;
            for (const auto& [cause, n] : self.refused().counts())
              counts.append(nb::make_tuple(cause / kSkip, name_of(static_cast<Cause>(cause % kSkip)), n));
            return counts;
          },
          nb::sig("def refused(self) -> list[tuple[int, str, int]]"),
          "Other packets that were not taken: input, cause, count, in the order in which they first "
          "occurred.");
}

}  // namespace mmedge::bindings
