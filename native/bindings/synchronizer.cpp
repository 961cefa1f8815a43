#include "sync/synchronizer.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

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

Stamp stamp_of(nb::handle packet) {
  const auto time = [packet](const char* name) { return nb::cast<Nanoseconds>(packet.attr(name)).value; };
  return {time("epoch"), time("capture_ns"), time("arrive_ns"), time("uncertainty_ns")};
}

// Keeps what packets carry under the slots of the synchroniser, and makes snapshots of its cuts.
class PacketSynchronizer {
 public:
  PacketSynchronizer(const Synchronizer::Rules& rules, nb::dict absent, nb::object snapshot,
                     nb::object explain)
      : core(rules),
        absent_(std::move(absent)),
        snapshot_(std::move(snapshot)),
        explain_(std::move(explain)) {}

  std::size_t add(const nb::str& name, bool image, std::size_t input) {
    names_.push_back(name);
    image_.push_back(image);
    return input;
  }

  void push_frame(std::size_t input, const nb::object& frame) {
    keep(core.push_frame(input, stamp_of(frame), nb::cast<Nanoseconds>(frame.attr("unchanged_ns")).value,
                         nb::cast<bool>(frame.attr("damaged"))),
         frame);
  }
  void push_value(std::size_t input, const nb::object& value, bool blank) {
    keep(core.push_value(input, stamp_of(value), blank), value);
  }
  void push_block(std::size_t input, nb::handle block) {
    const auto samples = nb::cast<Input>(block.attr("samples"));
    check<float>(samples, "samples");
    if (samples.ndim() != 1) throw std::invalid_argument("samples must have one dimension");
    core.push_block(input, stamp_of(block), static_cast<const float*>(samples.data()), samples.shape(0),
                    nb::cast<std::int64_t>(block.attr("lost")));
  }
  void push_run(std::size_t input, const SoundRun& run) {
    for (const SoundRun::Block& block : run.blocks()) {
      const SoundRecord& said = block.record;
      core.push_block(input, {said.epoch, said.capture_ns, said.arrive_ns, said.uncertainty_ns},
                      run.samples(block), block.samples, block.lost);
    }
  }

  nb::list poll() {
    let_go();
    nb::list ready;
    const std::size_t n = core.poll();
    for (std::size_t i = 0; i < n; ++i) ready.append(snapshot(core.ready(i)));
    return ready;
  }
  void trim() {
    core.trim();
    let_go();
  }
  void close() {
    core.close();
    let_go();
  }

  Synchronizer core;

 private:
  static void release(nb::handle payload) {
    if (!nb::hasattr(payload, "release")) return;  // a text or an array
    const nb::object slot = payload.attr("release");
    if (!slot.is_none()) slot();
  }
  void keep(Slot slot, const nb::object& payload) {
    if (slot == kNoSlot) {
      release(payload);
      return;
    }
    const auto place = static_cast<std::size_t>(slot);
    if (place >= payloads_.size()) payloads_.resize(place + 1);
    payloads_[place] = payload;
  }
  // Releases the frames that nobody wants any more.
  void let_go() {
    std::vector<nb::object> left;  // all of them first: what releases is Python's, and may raise
    core.drain([&](Slot slot) { left.push_back(std::move(payloads_[static_cast<std::size_t>(slot)])); });
    for (const nb::object& payload : left) release(payload);
  }

  nb::object snapshot(const Cuts& cuts) const {
    const auto present = nb::steal<nb::dict>(PyDict_Copy(absent_.ptr()));
    nb::dict frames, audio_end, audio_end_ns, audio_span, values, age_ms, epoch;
    std::string reason;
    for (std::size_t i = 0; i < cuts.inputs.size(); ++i) {
      const Cut& cut = cuts.inputs[i];
      const nb::str& name = names_[i];
      if (cut.why != kPresent) {
        if (!reason.empty()) reason += "; ";
        reason += nb::cast<std::string>(explain_(name, name_of(cut.why), cut.why_ns));
        continue;
      }
      present[name] = true;
      epoch[name] = cut.epoch;
      age_ms[name] = static_cast<double>(cut.age_ns) / 1e6;
      if (cut.slot == kNoSlot) {
        audio_end[name] = cut.end;
        audio_end_ns[name] = core.sound(i).end_ns(cut.end);
        audio_span[name] = nb::make_tuple(cut.first, cut.oldest);
      } else {
        (image_[i] ? frames : values)[name] = payloads_[static_cast<std::size_t>(cut.slot)];
      }
    }
    // The trigger's own time may be wrong one way and that of another input the other way.
    const std::int64_t uncertainty_ns = cuts.uncertainty_ns + cuts.others_uncertainty_ns;
    return snapshot_(
        nb::arg("t_ns") = cuts.t_ns, nb::arg("seq") = cuts.seq, nb::arg("present") = present,
        nb::arg("frames") = frames, nb::arg("audio_end") = audio_end, nb::arg("audio_end_ns") = audio_end_ns,
        nb::arg("audio_span") = audio_span, nb::arg("values") = values, nb::arg("age_ms") = age_ms,
        nb::arg("epoch") = epoch, nb::arg("skew_ms") = static_cast<double>(cuts.skew_ns) / 1e6,
        nb::arg("uncertainty_ms") = static_cast<double>(uncertainty_ns) / 1e6,
        nb::arg("stamp_uncertainty_ns") = cuts.uncertainty_ns, nb::arg("deliver_ns") = cuts.deliver_ns,
        nb::arg("wait_ns") = cuts.wait_ns, nb::arg("on_frame") = cuts.on_frame,
        nb::arg("reason") = reason.empty() ? nb::object(nb::none()) : nb::cast(reason));
  }

  nb::dict absent_;
  nb::object snapshot_, explain_;
  std::vector<nb::str> names_;
  std::vector<bool> image_;
  std::vector<nb::object> payloads_;  // by slot
};

}  // namespace

// Calls of a few microseconds keep the GIL: to get it back can take milliseconds. So any thread may ask.
void bind_synchronizer(nb::module_& m) {
  using Sync = PacketSynchronizer;
  nb::class_<Sync>(
      m, "Synchronizer",
      "Packets in, snapshots out, on capture time alone; it reads no clock. Times are ns.\n\n"
      "Inputs are numbered in the order in which they are added. A frame is released once nobody "
      "wants it.")
      .def(
          "__init__",
          [](Sync* self, Nanoseconds started_ns, Nanoseconds wait_ns, Nanoseconds hold_ns,
             Nanoseconds every_ns, bool timer, bool latest, bool lossless, nb::dict absent,
             nb::object snapshot, nb::object explain) {
            new (self) Sync({started_ns, wait_ns, hold_ns, every_ns, timer, latest, lossless},
                            std::move(absent), std::move(snapshot), std::move(explain));
          },
          nb::kw_only(), nb::arg("started_ns"), nb::arg("wait_ns"), nb::arg("hold_ns"), nb::arg("every_ns"),
          nb::arg("timer"), nb::arg("latest"), nb::arg("lossless"), nb::arg("absent"), nb::arg("snapshot"),
          nb::arg("explain"),
          nb::sig("def __init__(self, *, started_ns: int, wait_ns: int, hold_ns: int, every_ns: int, "
                  "timer: bool, latest: bool, lossless: bool, absent: dict[str, bool], "
                  "snapshot: type, explain: collections.abc.Callable[[str, str, int], str]) -> None"),
          "``absent`` names every input of a snapshot; ``explain`` says of a name why its input is absent: "
          "by a "
          "word, and\nby how many ns.")
      .def(
          "add_image",
          [](Sync& self, const nb::str& name, bool live, const std::string& policy, const Span& max_age_ns,
             bool trigger) {
            return self.add(name, true, self.core.add_image(rules(live, policy, max_age_ns), trigger));
          },
          nb::kw_only(), nb::arg("name"), nb::arg("live"), nb::arg("policy"), nb::arg("max_age_ns").none(),
          nb::arg("trigger"), "Add an image input; return its number.")
      .def(
          "add_audio",
          [](Sync& self, const nb::str& name, bool live, const std::string& policy, const Span& max_age_ns,
             bool trigger, std::int64_t rate_hz, std::int64_t window, Nanoseconds ahead_ns,
             Nanoseconds reserve_ns) {
            const AudioStream::Rules sound{rate_hz, window, ahead_ns, reserve_ns};
            return self.add(name, false,
                            self.core.add_audio(rules(live, policy, max_age_ns), sound, trigger));
          },
          nb::kw_only(), nb::arg("name"), nb::arg("live"), nb::arg("policy"), nb::arg("max_age_ns").none(),
          nb::arg("trigger"), nb::arg("rate_hz"), nb::arg("window"), nb::arg("ahead_ns"),
          nb::arg("reserve_ns"),
          "Add an audio input, whose window of samples ends ``ahead_ns`` after the trigger; return its "
          "number.")
      .def(
          "add_value",
          [](Sync& self, const nb::str& name, bool live, const std::string& policy, const Span& max_age_ns,
             bool trigger, const Span& ttl_ns, const Span& period_ns, bool paced) {
            const ValueStream::Rules values{span(ttl_ns), span(period_ns), paced};
            return self.add(name, false,
                            self.core.add_value(rules(live, policy, max_age_ns), values, trigger));
          },
          nb::kw_only(), nb::arg("name"), nb::arg("live"), nb::arg("policy"), nb::arg("max_age_ns").none(),
          nb::arg("trigger"), nb::arg("ttl_ns").none(), nb::arg("period_ns").none(), nb::arg("paced"),
          "Add an input of texts or arrays; return its number.")
      .def("push_frame", &Sync::push_frame, nb::arg("input"), nb::arg("frame"), "Take a frame.")
      .def("push_value", &Sync::push_value, nb::arg("input"), nb::arg("value"), nb::arg("blank"),
           "Take a text or an array.")
      .def("push_block", &Sync::push_block, nb::arg("input"), nb::arg("block"),
           "Take a block; its samples are float32 [n].")
      .def("push_run", &Sync::push_run, nb::arg("input"), nb::arg("run"),
           "Take the blocks of a run, as ``push_block`` does each.")
      .def(
          "push_arrival",
          [](Sync& self, std::size_t input, nb::handle packet) {
            self.core.push_arrival(input, stamp_of(packet));
          },
          nb::arg("input"), nb::arg("packet"), "Take the times of a packet that made room for a newer one.")
      .def(
          "push_end",
          [](Sync& self, std::size_t input, nb::handle packet, bool with_reason) {
            return self.core.push_end(input, stamp_of(packet), with_reason);
          },
          nb::arg("input"), nb::arg("packet"), nb::arg("with_reason"),
          "Note that the source has nothing more to say; False: it is an old one's end.")
      .def(
          "advance", [](Sync& self, Nanoseconds now_ns) { self.core.advance(now_ns); }, nb::arg("now_ns"),
          "Tell the time.")
      .def(
          "next_deadline_ns", [](const Sync& self) { return self.core.next_deadline_ns(); },
          "Return when ``poll`` must be called even if nothing arrives, or None.")
      .def("poll", &Sync::poll, nb::sig("def poll(self) -> list[typing.Any]"),
           "Return the snapshots that are ready, in order of capture time.")
      .def("trim", &Sync::trim, "Let go of what neither a trigger nor what was polled so far can want.")
      .def("close", &Sync::close, "Let go of everything.")
      .def(
          "starting",
          [](const Sync& self, std::size_t input, Nanoseconds t_ns) {
            return self.core.starting(input, t_ns);
          },
          nb::arg("input"), nb::arg("t_ns"), "Whether nothing can be there at ``t_ns`` yet.")
      .def(
          "silence_ns",
          [](const Sync& self, std::size_t input, Nanoseconds now_ns) {
            return self.core.silence_ns(input, now_ns);
          },
          nb::arg("input"), nb::arg("now_ns"),
          "For how long an input has given nothing, None while it is alive or if it keeps no rate.")
      .def(
          "steady_ns",
          [](const Sync& self, std::size_t input, Nanoseconds now_ns) {
            return self.core.steady(input, now_ns) ? std::optional(self.core.stream(input).period_ns())
                                                   : std::nullopt;
          },
          nb::arg("input"), nb::arg("now_ns"),
          "The period of an input that is live, keeps a rate and was alive at ``now_ns``, or None.")
      .def(
          "ahead_ns",
          [](const Sync& self, Nanoseconds capture_ns, const std::vector<std::size_t>& others) {
            return self.core.ahead_ns(capture_ns, others);
          },
          nb::arg("capture_ns"), nb::arg("others"),
          "How far ``capture_ns`` is ahead of the slowest of ``others``.")
      .def(
          "ring",
          [](const Sync& self, std::size_t input) -> const SampleRing& {
            return self.core.sound(input).ring();
          },
          nb::arg("input"), nb::rv_policy::reference_internal, "The samples of an audio input.")
      .def(
          "end_ns",
          [](const Sync& self, std::size_t input, std::int64_t end) {
            return self.core.sound(input).end_ns(end);
          },
          nb::arg("input"), nb::arg("end"), "When the instant before sample ``end`` was sensed.")
      .def(
          "lost", [](const Sync& self, std::size_t input) { return self.core.sound(input).lost(); },
          nb::arg("input"), "The lost samples of an audio input.")
      .def_prop_ro(
          "triggers", [](const Sync& self) { return self.core.triggers(); }, "How many triggers were made.")
      .def_prop_ro(
          "period_ns", [](const Sync& self) { return self.core.period_ns(); },
          "From one trigger to the next, as measured.")
      .def_prop_ro(
          "pending", [](const Sync& self) { return self.core.pending(); }, "How many triggers wait.")
      .def_prop_ro(
          "finished", [](const Sync& self) { return self.core.finished(); },
          "Whether no trigger waits and none can come.")
      .def_prop_ro(
          "drops",
          [](const Sync& self) {
            nb::list counts;
            for (const auto& [cause, n] : self.core.drops().counts()) {
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
          [](const Sync& self) {
            nb::list counts;
            for (const auto& [cause, n] : self.core.refused().counts())
              counts.append(nb::make_tuple(cause / kSkip, name_of(static_cast<Cause>(cause % kSkip)), n));
            return counts;
          },
          nb::sig("def refused(self) -> list[tuple[int, str, int]]"),
          "Other packets that were not taken: input, cause, count, in the order in which they first "
          "occurred.");
}

}  // namespace mmedge::bindings
