#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "graph/spans.hpp"
#include "graph/stretch.hpp"

namespace {

using mmedge::Life;
using mmedge::Moment;
using mmedge::Stage;
using mmedge::StageHands;
using mmedge::Stretch;

constexpr std::int64_t kMs = 1'000'000;

Moment moment(std::int64_t t_ns, const std::vector<std::int64_t>& numbers) {
  Moment made;
  made.t_ns = t_ns;
  for (std::size_t seat = 0; seat < numbers.size(); ++seat) {
    const bool there = numbers[seat] >= 0;
    made.marks.push_back({there, 0, numbers[seat]});
    made.ages_ms.push_back(0.0);
    if (there) made.bits |= std::uint64_t{1} << seat;
  }
  return made;
}

// Two seats: the first feeds one stage, the second seat and that stage feed another, at most every 50 ms.
struct Two : StageHands {
  Stage one{{1, 1, {0}, true, std::nullopt}, 2, {}};
  Stage two{{3, 3, {1}, true, 50 * kMs}, 2, {&one}};
  float given = 0, first = 0, linked = 0, second = 0, presence[2] = {}, ages[2] = {};
  std::string calls;  // what was called, and for which stage
  std::string throws;
  Stretch stretch{{{&one, {}, {}, {{&first, 1, sizeof first}}, {&two}},
                   {&two,
                    {{&first, &linked, sizeof first}},
                    {{presence, true}, {ages, false}},
                    {{&second, 1, sizeof second}},
                    {&one}}},
                  2};

  void say(char what, std::size_t at) {
    const std::string call{what, static_cast<char>('1' + at)};
    calls += call;
    if (call == throws) throw std::runtime_error("it fails");
  }
  void fill(std::size_t at) override { say('s', at); }
  void fed(std::size_t at) override { say('f', at); }
  void run(std::size_t at) override {
    at == 0 ? first = given : second = 10 * linked;
    say('r', at);
  }
  void infinite(std::size_t at) override {
    say('i', at);
    throw std::runtime_error("it is not finite");
  }
  void absent(std::size_t at) override {
    say('a', at);
    Stage& stage = at == 0 ? one : two;
    stage.forget_seen();
    stage.blank = true;
    stage.life = Life::kCold;
    ++stage.version;
  }

  const std::string& at(Moment now, bool again = false) {
    calls.clear();
    if (!again) stretch.begin();
    seen = now;
    stretch.run(&seen, this);
    return calls;
  }
  Moment seen;
};

bool fails(Two& two, const Moment& now) {
  try {
    two.at(now);
  } catch (const std::runtime_error&) {
    return true;
  }
  return false;
}

void rules() {
  Two two;
  two.given = 4;
  CHECK(two.at(moment(0, {1, 1})) == "s1f1r1s2f2r2");
  CHECK(two.second == 40 && two.presence[0] == 1 && two.presence[1] == 1 && two.stretch.at() == 2);
  CHECK(two.at(moment(33 * kMs, {1, 1})).empty());  // nothing is new
  CHECK(two.seen.ages_ms[0] == 33.0 && two.seen.ages_ms[1] == 33.0);
  CHECK(two.at(moment(40 * kMs, {2, 1})) == "s1f1r1");  // the other is not due
  CHECK(two.seen.ages_ms[0] == 40.0);                   // of the older output
  // Not quite 50 ms, which is due; the age that it is fed is that of the picture's own output: none.
  CHECK(two.at(moment(50 * kMs - Stage::kSlackNs, {2, 1})) == "s2f2r2");
  CHECK(two.at(moment(70 * kMs, {2, 1})).empty());
  CHECK(two.at(moment(80 * kMs, {2, -1})) == "s2f2r2" && two.presence[1] == 0);  // other inputs: at once
  CHECK(two.at(moment(90 * kMs, {-1, -1})) == "a1a2" && two.one.life == Life::kCold);
  CHECK(two.at(moment(91 * kMs, {-1, -1})).empty());  // nothing to forget
  CHECK(two.at(moment(92 * kMs, {2, 1})) == "s1f1r1s2f2r2");
  CHECK(two.at(moment(92 * kMs, {2, 1}), true).empty() && two.one.ran);  // it has run for this trigger
  CHECK(two.at(moment(92 * kMs, {-1, 1}), true) == "a1s2f2r2");          // what it saw was taken back
}

void failures() {
  for (const std::string call : {"s1", "f1", "r1", "s2", "f2", "r2"}) {
    Two two;
    two.throws = call;
    CHECK(fails(two, moment(0, {1, 1})) && two.calls.substr(two.calls.size() - 2) == call);
    CHECK(two.stretch.at() == static_cast<std::size_t>(call[1] - '1'));
    Stage& stage = call[1] == '1' ? two.one : two.two;
    CHECK(stage.life == Life::kCold && !stage.ran && stage.version == 0);
  }
  Two two;
  two.given = std::nanf("");
  CHECK(fails(two, moment(0, {1, 1})) && two.calls == "s1f1r1i1" && two.one.life == Life::kCold);
}

void heavy() {
  Two two;
  two.one.cost_ns = two.two.cost_ns = Stage::kHeavyNs;
  CHECK(two.at(moment(0, {1, 1})).empty() && two.stretch.at() == 0);  // they are for threads
  two.two.cost_ns = 1;
  CHECK(two.at(moment(1, {1, 1})) == "s1f1r1s2f2r2");
}

void spans() {
  Two two;
  mmedge::Spans spans({&two.one, &two.two});
  CHECK(spans.take() == 0);
  two.at(moment(0, {1, 1}));
  CHECK(spans.take() == 2);
  const std::int64_t* found = spans.numbers();
  CHECK(found[0] == 0 && found[5] == 1);
  for (const std::size_t first : {1, 6})  // fed, then run
    CHECK(0 < found[first] && found[first] <= found[first + 1] && found[first + 1] <= found[first + 2] &&
          found[first + 2] <= found[first + 3]);
  CHECK(found[4] <= found[6]);  // one after the other
  two.at(moment(40 * kMs, {2, 1}));
  CHECK(spans.take() == 1 && spans.numbers()[0] == 0);  // the other was not due
  CHECK(spans.take() == 0);
  two.throws = "r1";
  CHECK(fails(two, moment(60 * kMs, {3, 1})) && spans.take() == 1);  // a run that fails takes its time, too
}

void costs() {
  Stage stage{{1, 1, {0}, true, std::nullopt}, 1, {}};
  stage.took(0, 1'600'000);
  CHECK(stage.cost_ns == 1'600'000 && stage.took_ns == 1'600'000);
  stage.took(0, 9'000'000);
  CHECK(stage.cost_ns == 1'700'000);  // a stall does not make it heavy
  stage.took(0, 1'650'000);
  CHECK(stage.cost_ns == 1'700'000 && stage.took_ns == 1'650'000);
  stage.took(0, 0);
  CHECK(stage.cost_ns == 1'700'000 - 1'700'000 / 16);
  CHECK(refuses([] { Stage({1, 1, {1}, true, std::nullopt}, 1, {}); }));
  CHECK(refuses([] { Stage({1, 1, {}, true, std::nullopt}, 63, {}); }));
}

// A run that is handed to a thread of its own: the way there and back is not the engine's time.
void runs_elsewhere() {
  Stage stage{{1, 1, {0}, true, std::nullopt}, 1, {}};
  stage.ran_within(100, 1'000'100);
  CHECK(stage.took(50, 1'300'000) == 1'000'000 && stage.took_ns == 1'000'000);
  CHECK(stage.span().ran_from_ns == 100 && stage.span().ran_until_ns == 1'000'100);
  CHECK(stage.took(50, 1'300'000) == 1'299'950);  // it was of that run alone
  stage.ran_within(100, 1'000'100);
  CHECK(stage.took(200, 1'300'000) == 1'299'800);  // what does not lie within the run was of another one
}

}  // namespace

int main() {
  rules();
  failures();
  heavy();
  spans();
  costs();
  runs_elsewhere();
}
