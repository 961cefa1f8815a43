#include "graph/stage.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace mmedge {

Stage::Stage(Rules rules, std::size_t seats, std::vector<const Stage*> producers)
    : rules_(std::move(rules)),
      producers_(std::move(producers)),
      seen_versions_(producers_.size(), kNever),
      seen_(seats),
      open_(rules_.direct),
      epochs_(seats) {
  if (seats > Moment::kMaxSeats) throw std::invalid_argument("too many seats");
  for (const std::size_t seat : rules_.watches)
    if (seat >= seats) throw std::invalid_argument("there is no such seat");
  for (const Stage* producer : producers_) {
    if (producer->rules_.stream) {
      streams_.push_back(producer);
      continue;
    }
    open_ |= producer->open_;
    streams_.insert(streams_.end(), producer->streams_.begin(), producer->streams_.end());
  }
  // There are more ways through a graph than stages.
  std::sort(streams_.begin(), streams_.end());
  streams_.erase(std::unique(streams_.begin(), streams_.end()), streams_.end());
}

std::uint64_t Stage::unheard() const {
  std::uint64_t heard = behind() ? open_ : rules_.depends;
  for (const Stage* stream : streams_)
    if (!is_cold(stream->life)) heard |= stream->rules_.depends;
  return rules_.depends & ~heard;
}

bool Stage::turn(const Moment& moment) {
  bool turned = false;
  const std::uint64_t dated = moment.dated & rules_.depends;
  for (std::size_t seat = 0; seat < epochs_.size(); ++seat) {
    if (!(dated >> seat & 1)) continue;
    turned = turned || ((dated_ >> seat & 1) && epochs_[seat] != moment.epochs[seat]);
    epochs_[seat] = moment.epochs[seat];
  }
  dated_ |= dated;
  return turned;
}

Stage::Due Stage::due(const Moment& moment, std::uint64_t bits) const {
  const bool changed = static_cast<std::int64_t>(bits & rules_.masks) != fed_bits_;
  // Once it ran for this trigger, it must not answer to what has been taken back.
  if (ran) return changed || linked_anew() ? Due::kYes : Due::kNo;
  if (changed) return Due::kYes;  // what it gave answered to other inputs, or it never ran
  if (rules_.every_ns && moment.t_ns < due_ns_ - kSlackNs) return Due::kNo;
  const auto is_new_to_it = [&](std::size_t seat) { return is_new(moment, seat); };
  if (std::any_of(rules_.watches.begin(), rules_.watches.end(), is_new_to_it)) return Due::kIfDifferent;
  return rules_.follows && linked_anew() ? Due::kIfDifferent : Due::kNo;
}

bool Stage::linked_anew() const {
  for (std::size_t i = 0; i < producers_.size(); ++i)
    if (producers_[i]->version != seen_versions_[i]) return true;
  return false;
}

void Stage::see(const Moment& moment, std::uint64_t bits) {
  fed_bits_ = static_cast<std::int64_t>(bits & rules_.masks);
  for (const std::size_t seat : rules_.watches) seen_[seat] = moment.marks[seat];
  for (std::size_t i = 0; i < producers_.size(); ++i) seen_versions_[i] = producers_[i]->version;
}

void Stage::schedule(std::int64_t now_ns) {
  if (!rules_.every_ns) return;
  const std::int64_t late_ns = now_ns - due_ns_;
  due_ns_ = (late_ns >= -kSlackNs && late_ns < *rules_.every_ns ? due_ns_ : now_ns) + *rules_.every_ns;
}

std::int64_t Stage::took(std::int64_t from_ns, std::int64_t until_ns) {
  const auto within = std::exchange(within_, kNowhere);
  if (from_ns <= within.first && within.first <= within.second && within.second <= until_ns)
    std::tie(from_ns, until_ns) = within;
  span_.ran_from_ns = from_ns;
  span_.ran_until_ns = until_ns;
  const std::int64_t ns = until_ns - from_ns;
  took_ns = ns;
  const std::int64_t step_ns = std::max<std::int64_t>(cost_ns >> 4, 1000);
  if (cost_ns == 0)
    cost_ns = ns;
  else if (ns - cost_ns > step_ns)
    cost_ns += step_ns;
  else if (cost_ns - ns > step_ns)
    cost_ns -= step_ns;
  return ns;
}

void Stage::age(Moment* moment) const {
  const std::int64_t stale_ns = moment->t_ns - t_ns;
  if (stale_ns <= 0) return;
  const std::uint64_t present = moment->bits & rules_.depends;
  for (std::size_t seat = 0; seat < moment->ages_ms.size(); ++seat)
    if (present >> seat & 1) moment->raise_age(seat, static_cast<double>(stale_ns) / 1e6);
}

}  // namespace mmedge
