#include "sync/synchronizer.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace mmedge {
namespace {

std::int64_t within(std::int64_t time_ns) { return std::clamp(time_ns, -kForeverNs / 2, kForeverNs / 2); }

}  // namespace

Synchronizer::Synchronizer(const Rules& rules)
    : rules_(rules),
      now_ns_(within(rules.started_ns)),
      triggers_({rules.every_ns, rules.wait_ns, rules.timer && !rules.lossless}, payloads_) {
  rules_.started_ns = now_ns_;
  if (rules.wait_ns > kForeverNs || rules.hold_ns > kForeverNs)
    throw std::invalid_argument("wait_ns and hold_ns must be at most 2**62");
}

std::size_t Synchronizer::add(Seat seat, bool trigger) {
  triggers_.add(*seat.stream, trigger, seat.audio == nullptr);
  seats_.push_back(std::move(seat));
  return seats_.size() - 1;
}

std::size_t Synchronizer::add_image(StreamRules rules, bool trigger) {
  rules.started_ns = rules_.started_ns;
  auto stream = std::make_unique<ImageStream>(rules, payloads_);
  ImageStream* const image = stream.get();
  return add({std::move(stream), image, nullptr, nullptr}, trigger);
}

std::size_t Synchronizer::add_audio(StreamRules rules, const AudioStream::Rules& sound, bool trigger) {
  rules.started_ns = rules_.started_ns;
  auto stream = std::make_unique<AudioStream>(rules, sound);
  AudioStream* const audio = stream.get();
  return add({std::move(stream), nullptr, audio, nullptr}, trigger);
}

std::size_t Synchronizer::add_value(StreamRules rules, const ValueStream::Rules& values, bool trigger) {
  rules.started_ns = rules_.started_ns;
  auto stream = std::make_unique<ValueStream>(rules, values, payloads_);
  ValueStream* const value = stream.get();
  return add({std::move(stream), nullptr, nullptr, value}, trigger);
}

const Synchronizer::Seat& Synchronizer::seat(std::size_t input) const {
  if (input >= seats_.size()) throw std::invalid_argument("there is no such input");
  return seats_[input];
}

const AudioStream& Synchronizer::sound(std::size_t input) const {
  if (!seat(input).audio) throw std::invalid_argument("this input is not an audio input");
  return *seat(input).audio;
}

void Synchronizer::arrive(Stamp* stamp) {
  for (std::int64_t* time : {&stamp->epoch, &stamp->capture_ns, &stamp->arrive_ns, &stamp->uncertainty_ns})
    *time = within(*time);
  now_ns_ = std::max(now_ns_, stamp->arrive_ns);
}

// Makes the trigger of a packet, or counts why it was refused.
Slot Synchronizer::settle(std::size_t input, const Stamp& stamp, const Pushed& pushed) {
  const bool own = seats_[input].stream.get() == triggers_.own();
  if (pushed.cause == kTaken && own)
    triggers_.on_packet(stamp, pushed.item);
  else if (pushed.cause != kTaken && own)
    triggers_.on_refused(stamp, pushed.cause, false);
  else if (pushed.cause != kTaken)
    refused_.add(static_cast<int>(input) * kSkip + pushed.cause);
  triggers_.make_hops(now_ns_, stamp.arrive_ns);
  return pushed.item.slot;
}

Slot Synchronizer::push_frame(std::size_t input, Stamp stamp, std::int64_t unchanged_ns, bool damaged) {
  ImageStream* const image = seat(input).image;
  if (!image) throw std::invalid_argument("this input is not an image input");
  arrive(&stamp);
  Item item;
  item.unchanged_ns = unchanged_ns;
  item.damaged = damaged;
  return settle(input, stamp, image->push(stamp, item));
}

Slot Synchronizer::push_value(std::size_t input, Stamp stamp, bool blank) {
  ValueStream* const value = seat(input).value;
  if (!value) throw std::invalid_argument("this input takes no text and no array");
  arrive(&stamp);
  Item item;
  item.blank = blank;
  return settle(input, stamp, value->push(stamp, item));
}

void Synchronizer::push_block(std::size_t input, Stamp stamp, const float* samples, std::size_t n,
                              std::int64_t lost) {
  AudioStream* const audio = seat(input).audio;
  if (!audio) throw std::invalid_argument("this input is not an audio input");
  if (lost < 0) throw std::invalid_argument("the number of lost samples must not be negative");
  arrive(&stamp);
  const Cause cause = audio->push(stamp, samples, n, lost);
  if (cause != kTaken)
    refused_.add(static_cast<int>(input) * kSkip + cause);  // hops on sound follow what is cut
  triggers_.make_hops(now_ns_, stamp.arrive_ns);
}

void Synchronizer::push_arrival(std::size_t input, Stamp stamp) {
  const Seat& to = seat(input);
  arrive(&stamp);
  const Cause refused = to.stream->passed(stamp);
  const Cause cause = refused == kTaken ? kOverrun : refused;
  if (to.stream.get() == triggers_.own() && !to.audio)
    triggers_.on_refused(stamp, cause, true);
  else
    refused_.add(static_cast<int>(input) * kSkip + cause);
  triggers_.make_hops(now_ns_, stamp.arrive_ns);
}

bool Synchronizer::push_end(std::size_t input, Stamp stamp, bool with_reason) {
  const Seat& to = seat(input);
  arrive(&stamp);
  const bool taken = to.stream->end(stamp.epoch, with_reason);
  triggers_.make_hops(now_ns_, stamp.arrive_ns);
  return taken;
}

void Synchronizer::advance(std::int64_t now_ns) {
  now_ns_ = std::max(now_ns_, within(now_ns));
  if (triggers_.ticking() && triggers_.ticks(now_ns_)) triggers_.make_hops(now_ns_, now_ns_);
}

std::optional<std::int64_t> Synchronizer::next_deadline_ns() const {
  if (rules_.lossless) return std::nullopt;
  if (triggers_.pending().empty()) return triggers_.next_tick_ns(now_ns_);
  const Trigger& trigger = triggers_.pending().front();
  // What holds it back may fall silent before the deadline.
  std::optional<std::int64_t> silent_ns;
  if (!rules_.latest) {
    for (const Seat& held : seats_)
      if (held.stream->waits() && blocks(*held.stream, trigger))
        silent_ns = std::max(silent_ns.value_or(held.stream->silent_ns()), held.stream->silent_ns());
  }
  return std::min(trigger.deliver_ns + rules_.wait_ns, silent_ns.value_or(now_ns_));
}

// Whether a trigger still waits for a stream. It does not for one that fell silent: like a watermark that
// goes on by itself, a delay behind the time, but no trigger waits out that delay.
bool Synchronizer::blocks(const Stream& stream, const Trigger& trigger) const {
  if (stream.complete(trigger.t_ns) || (&stream == trigger.clock && trigger.by_packet)) return false;
  return stream.alive(now_ns_);
}

bool Synchronizer::waits(const Trigger& trigger) const {
  if (rules_.latest || now_ns_ >= trigger.deliver_ns + rules_.wait_ns) return false;
  return std::any_of(seats_.begin(), seats_.end(),
                     [&](const Seat& held) { return held.stream->waits() && blocks(*held.stream, trigger); });
}

std::size_t Synchronizer::poll() {
  if (triggers_.pending().empty()) return 0;
  std::size_t n = 0;
  while (!triggers_.pending().empty() && !waits(triggers_.pending().front())) {
    const Trigger trigger = triggers_.pending().front();
    triggers_.pop();
    if (n == ready_.size()) ready_.emplace_back();
    if (cut(trigger, &ready_[n])) ++n;
    payloads_.release(trigger.item.slot);
  }
  triggers_.polled();
  return n;
}

// Returns false if the trigger became nothing, which is counted.
bool Synchronizer::cut(const Trigger& trigger, Cuts* cuts) {
  ++seq_;
  cuts->t_ns = trigger.t_ns;
  cuts->seq = seq_;
  cuts->deliver_ns = trigger.deliver_ns;
  cuts->wait_ns = std::max<std::int64_t>(now_ns_ - trigger.deliver_ns, 0);
  cuts->on_frame = false;
  // The trigger's own time may be wrong one way and that of another input the other way.
  cuts->uncertainty_ns = trigger.uncertainty_ns;
  cuts->others_uncertainty_ns = cuts->skew_ns = 0;
  cuts->inputs.resize(seats_.size());
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    const Stream& stream = *seats_[i].stream;
    Cut& cut = cuts->inputs[i];
    if (&stream == trigger.clock && trigger.by_packet) {
      cut = stream.admit(trigger.item, trigger.t_ns);
      cut.epoch = trigger.epoch;
      cuts->on_frame = seats_[i].image != nullptr;
    } else {
      cut = stream.cut(trigger.t_ns, rules_.latest);
    }
    if (cut.why == kPresent) {
      cuts->skew_ns = std::max(cuts->skew_ns, cut.skew_ns);
      if (&stream != trigger.clock)
        cuts->others_uncertainty_ns = std::max(cuts->others_uncertainty_ns, cut.uncertainty_ns);
    } else if (stream.let_go_near(trigger.t_ns)) {
      triggers_.drops().add(kOverrun);  // what it wanted had come, and made room for what is newer
      return false;
    } else if (stream.policy() == Policy::skip) {
      triggers_.drops().add(kSkip + static_cast<int>(i));
      return false;
    }
  }
  for (std::size_t i = 0; i < seats_.size(); ++i) {
    if (cuts->inputs[i].why != kPresent || !seats_[i].stream->runs_back(cuts->inputs[i].epoch, trigger.t_ns))
      continue;
    triggers_.drops().add(kLate);  // a clock that was far off has been here before
    return false;
  }
  for (std::size_t i = 0; i < seats_.size(); ++i)
    if (cuts->inputs[i].why == kPresent) seats_[i].stream->note_cut(cuts->inputs[i].epoch, trigger.t_ns);
  return true;
}

void Synchronizer::trim() {
  std::optional<Triggers::Wanted> wanted;
  for (const Seat& held : seats_) {
    Stream& stream = *held.stream;
    if (stream.kept() < 2) continue;
    if (!wanted) wanted = triggers_.wanted();
    std::int64_t keep_from_ns = wanted->t_ns;
    if (!rules_.lossless) {
      const std::int64_t past_ns = stream.watermark_ns() - rules_.hold_ns;
      keep_from_ns = std::max(stream.passed_ns(), pending() > 0 ? std::min(keep_from_ns, past_ns) : past_ns);
    }
    stream.trim(keep_from_ns, wanted->slot);
  }
}

void Synchronizer::close() {
  triggers_.close();
  for (const Seat& held : seats_) held.stream->close();
}

std::optional<std::int64_t> Synchronizer::silence_ns(std::size_t input, std::int64_t now_ns) const {
  const Stream& of = stream(input);
  now_ns = within(now_ns);
  if (!of.ranked() || of.alive(now_ns)) return std::nullopt;
  return now_ns - (of.has_arrived() ? of.last_arrive_ns() : rules_.started_ns);
}

bool Synchronizer::steady(std::size_t input, std::int64_t now_ns) const {
  const Stream& of = stream(input);
  return of.live() && of.ranked() && of.has_arrived() && of.alive(within(now_ns));
}

std::int64_t Synchronizer::ahead_ns(std::int64_t capture_ns, const std::vector<std::size_t>& others) const {
  std::int64_t slowest_ns = kForeverNs;
  for (const std::size_t input : others) {
    const Stream& other = stream(input);
    if (!other.ended() && other.waits())
      slowest_ns = std::min(slowest_ns, std::max(other.watermark_ns(), rules_.started_ns));
  }
  return within(capture_ns) - slowest_ns;
}

bool Synchronizer::finished() const {
  if (pending() > 0) return false;
  // A text makes no triggers, unless it is the trigger itself, goes with a timer, or nothing else is there.
  const auto makes = [&](const Seat& seat) {
    return seat.stream->ranked() || seat.stream.get() == triggers_.own();
  };
  const bool all = triggers_.ticking() || std::none_of(seats_.begin(), seats_.end(), makes);
  return std::all_of(seats_.begin(), seats_.end(),
                     [&](const Seat& seat) { return seat.stream->ended() || !(all || makes(seat)); });
}

}  // namespace mmedge
