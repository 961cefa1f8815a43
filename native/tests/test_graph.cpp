#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "graph/graph.hpp"
#include "graph/runner.hpp"
#include "graph/spans.hpp"
#include "graph/stream.hpp"

namespace {

using mmedge::Graph;
using mmedge::GraphHands;
using mmedge::Life;
using mmedge::Moment;
using mmedge::Runner;
using mmedge::Stage;
using mmedge::StageHands;
using mmedge::Tensors;

constexpr std::int64_t kMs = 1'000'000;

Moment moment(std::int64_t t_ns, const std::vector<std::int64_t>& numbers) {
  Moment made(numbers.size());
  made.t_ns = t_ns;
  for (std::size_t seat = 0; seat < numbers.size(); ++seat) {
    const bool there = numbers[seat] >= 0;
    made.marks[seat] = {there, 0, numbers[seat]};
    if (there) made.bits |= std::uint64_t{1} << seat;
  }
  return made;
}

// What was called, and for which stage; a call of this kind throws.
struct Calls {
  std::string calls, throws;
  void say(char what, char stage) {
    const std::string call{what, stage};
    calls += call;
    if (call == throws) throw std::runtime_error("it fails");
  }
};

// Copies one number to another one.
struct Hands : StageHands {
  Hands(Calls* told, char number, const float* from, float factor, float* to)
      : told_(told), number_(number), from_(from), factor_(factor), to_(to) {}
  void fill(const Moment&) override { told_->say('s', number_); }
  void hear(const Moment&, std::int64_t end) override {
    told_->say('h', number_);
    heard.push_back(end);
  }
  bool differs(const Moment&) override {
    told_->say('d', number_);
    return false;
  }
  void fed(const Moment&) override { told_->say('f', number_); }
  void run() override {
    *to_ = factor_ * *from_;
    told_->say('r', number_);
  }
  void infinite() override {
    told_->say('i', number_);
    throw std::runtime_error("it is not finite");
  }

  std::vector<std::int64_t> heard;

 private:
  Calls* told_;
  char number_;
  const float* from_;
  float factor_;
  float* to_;
};

Stage::Rules rules_of(std::uint64_t depends, std::vector<std::size_t> watches,
                      std::optional<std::int64_t> every_ns = std::nullopt) {
  return {depends, depends, std::move(watches), true, every_ns};
}

// Two seats: the first feeds one stage, the second seat and that stage feed another, at most every 50 ms.
struct Two : Calls, GraphHands {
  Stage one{rules_of(1, {0}), 2, {}};
  Stage two{rules_of(3, {1}, 50 * kMs), 2, {&one}};
  float given = 0, first = 0, linked = 0, second = 0, presence[2] = {}, ages[2] = {};
  Runner runners[2]{Runner(&one), Runner(&two)};
  Graph graph{{{&runners[0], {}, {1}}, {&runners[1], {0}, {0}}}, 2};
  std::vector<std::size_t> fails_beside;  // when it is waited for

  Two() {
    auto tensors = std::make_unique<Tensors>();
    tensors->outputs = {{&first, 1, sizeof first}};
    tensors->shown = {{&first, sizeof first}};
    runners[0].serve(std::move(tensors), std::make_unique<Hands>(this, '1', &given, 1.0f, &first));
    tensors = std::make_unique<Tensors>();
    tensors->links = {{&first, &linked, sizeof first}};
    tensors->rows = {{presence, true}, {ages, false}};
    tensors->outputs = {{&second, 1, sizeof second}};
    tensors->shown = {{&second, sizeof second}};
    runners[1].serve(std::move(tensors), std::make_unique<Hands>(this, '2', &linked, 10.0f, &second));
  }

  const std::string& at(Moment now, bool again = false) {
    calls.clear();
    seen = now;
    graph.begin(seen, again, this);
    graph.run(&seen, this);
    graph.run_late(seen, this);
    return calls;
  }

  void recorded(std::size_t at) override {
    if (throws == std::string{'c', static_cast<char>('1' + at)}) say('c', throws[1]);
  }
  void beside(std::size_t at) override { say('b', static_cast<char>('1' + at)); }
  std::vector<std::size_t> wait(const std::vector<std::size_t>& stages) override {
    calls += 'w';
    for (const std::size_t at : stages) {
      calls += static_cast<char>('1' + at);
      if (fails_beside.empty()) runners[at].finish();
    }
    return fails_beside;
  }
  void start(std::size_t at) override { say('t', static_cast<char>('1' + at)); }
  void take_up(std::size_t at, bool lost) override {
    say(lost ? 'l' : 'u', static_cast<char>('1' + at));
    if (ended) runners[at].take_up(false);
  }
  void lose(std::size_t at) override { say('n', static_cast<char>('1' + at)); }
  bool ended = true;  // whether a background run has
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
  CHECK(two.second == 40 && two.presence[0] == 1 && two.presence[1] == 1 && two.graph.at() == 1);
  CHECK(two.at(moment(33 * kMs, {1, 1})).empty());  // nothing is new
  CHECK(two.seen.ages_ms[0] == 33.0 && two.seen.ages_ms[1] == 33.0);
  CHECK(two.at(moment(40 * kMs, {2, 1})) == "s1f1r1");  // the other is not due
  CHECK(two.seen.ages_ms[0] == 40.0);                   // of the older output
  // Not quite 50 ms, which is due; the age that it is fed is that of the picture's own output: none.
  CHECK(two.at(moment(50 * kMs - Stage::kSlackNs, {2, 1})) == "s2f2r2");
  CHECK(two.at(moment(70 * kMs, {2, 1})).empty());
  CHECK(two.at(moment(80 * kMs, {2, -1})) == "s2f2r2" && two.presence[1] == 0);  // other inputs: at once
  CHECK(two.at(moment(90 * kMs, {-1, -1})).empty() && two.one.life == Life::kCold && two.second == 0);
  CHECK(two.at(moment(91 * kMs, {-1, -1})).empty());  // nothing to forget
  CHECK(two.at(moment(92 * kMs, {2, 1})) == "s1f1r1s2f2r2");
  CHECK(two.at(moment(92 * kMs, {2, 1}), true).empty() && two.one.ran);  // it has run for this trigger
  CHECK(two.at(moment(92 * kMs, {-1, 1}), true) == "s2f2r2");            // what it saw was taken back
}

void failures() {
  for (const std::string call : {"s1", "f1", "c1", "r1", "s2", "f2", "c2", "r2"}) {
    Two two;
    two.throws = call;
    CHECK(fails(two, moment(0, {1, 1})) && two.calls.substr(two.calls.size() - 2) == call);
    CHECK(two.graph.at() == static_cast<std::size_t>(call[1] - '1'));
    Stage& stage = call[1] == '1' ? two.one : two.two;
    CHECK(stage.life == Life::kCold && !stage.ran && stage.version == 0);
  }
  Two two;
  two.given = std::nanf("");
  CHECK(fails(two, moment(0, {1, 1})) && two.calls == "s1f1r1i1" && two.one.life == Life::kCold);
}

// What a failed stage feeds is left out; when its seats are taken away, the rest runs.
void after_a_failure() {
  Two two;
  two.given = 4;
  two.throws = "r1";
  CHECK(fails(two, moment(0, {1, 1})));
  two.graph.run(&two.seen, &two);  // it goes on
  CHECK(two.calls == "s1f1r1" && !two.graph.used(0) && !two.graph.used(1));
  two.runners[0].fail();
  CHECK(two.at(moment(0, {-1, 1}), true) == "s2f2r2" && two.graph.used(1));
}

// Two heavy stages that do not need each other run on threads; what one feeds waits for it.
void heavy() {
  Two two;
  two.one.cost_ns = two.two.cost_ns = Stage::kHeavyNs;
  CHECK(two.at(moment(0, {1, 1})) == "s1f1b1w1s2f2b2w12" && two.graph.used(0) && two.graph.used(1));
  CHECK(two.one.life == Life::kWarm && two.two.life == Life::kWarm);
  two.fails_beside = {0};
  CHECK(two.at(moment(60 * kMs, {2, 2})) == "s1f1b1w1" && !two.graph.used(1));
  Two alone;
  alone.one.cost_ns = Stage::kHeavyNs;
  CHECK(alone.at(moment(1, {1, 1})) == "s1f1r1s2f2r2");
}

// The second stage runs in the background once it has run.
void late() {
  Two two;
  Stage::Rules rules = rules_of(3, {1});
  rules.background = true;
  two.two = Stage(rules, 2, {&two.one});
  two.graph = Graph{{{&two.runners[0], {}, {}}, {&two.runners[1], {0}, {}}}, 2};
  CHECK(two.at(moment(0, {1, 1})) == "s1f1r1s2f2r2");  // the first one is waited for
  CHECK(two.at(moment(10 * kMs, {2, 2})) == "s1f1r1s2f2t2" && two.two.life == Life::kRenewing);
  CHECK(two.graph.used(1) && two.seen.ages_ms[1] == 10.0);
  two.ended = false;
  CHECK(two.at(moment(20 * kMs, {2, 3})) == "u2");
  two.ended = true;
  CHECK(two.at(moment(30 * kMs, {2, 3})) == "u2s2f2t2" && two.two.t_ns == 10 * kMs);
  two.ended = false;
  CHECK(two.at(moment(40 * kMs, {-1, -1})) == "l2" && two.two.life == Life::kStale);
  CHECK(two.at(moment(50 * kMs, {3, 4})) == "l2s1f1r1" && two.graph.pending(1) && two.graph.any_pending());
  CHECK(two.at(moment(50 * kMs, {-1, -1}), true) == "n2" && two.two.life == Life::kStale);
  two.ended = true;
  CHECK(two.at(moment(60 * kMs, {4, 5})) == "l2s1f1r1s2f2r2");
  two.runners[1].fail();
  CHECK(two.at(moment(70 * kMs, {5, 6})) == "s1f1r1s2f2t2" &&
        two.graph.pending(1));  // tried again, not waited for
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

// A stage that keeps a sum, and runs on another value or epoch only.
struct Sum : Calls {
  Stage stage{[] {
                Stage::Rules rules = rules_of(3, {0, 1});
                rules.differs = true;
                return rules;
              }(),
              2,
              {}};
  float linked = 0, fed = 0, sum = 0, before = 0, constant = 0, seven = 7;
  Runner runner{&stage};

  Sum() {
    auto tensors = std::make_unique<Tensors>();
    tensors->links = {{&linked, &fed, sizeof fed}};
    tensors->states = {{&sum, &before, sizeof sum}};
    tensors->constants = {{&seven, &constant, sizeof seven}};
    tensors->shown = {{&sum, sizeof sum}};
    tensors->stateful = true;
    runner.serve(std::move(tensors), std::make_unique<Hands>(this, '1', &linked, 1.0f, &sum));
    runner.reset();
  }

  const std::string& at(const Moment& now) {
    calls.clear();
    stage.ran = false;
    if (runner.due(now, now.bits)) {
      runner.feed(now, now.bits);
      runner.execute();
      runner.finish();
    }
    return calls;
  }
};

Moment values(std::int64_t t_ns, const std::vector<std::int64_t>& numbers, std::int64_t epoch = 0) {
  Moment made = moment(t_ns, numbers);
  made.values = made.dated = 3;
  made.epochs = {epoch, epoch};
  return made;
}

void changes_and_states() {
  Sum sum;
  CHECK(sum.constant == 7);
  sum.linked = 4;
  CHECK(sum.at(values(0, {1, 1})) == "s1f1r1" && sum.sum == 4 && sum.before == 0);
  CHECK(sum.at(values(1, {1, 1})).empty());
  CHECK(sum.at(values(2, {2, 1})) == "d1");  // new, and the same
  CHECK(sum.at(values(3, {2, 1})).empty());  // which was seen
  sum.linked = 5;
  CHECK(sum.at(values(4, {3, 1})) == "s1f1r1" && sum.before == 4);  // without asking for the value
  Moment picture = values(5, {3, 2});
  picture.values = 1;
  CHECK(sum.at(picture) == "d1s1f1r1" && sum.before == 5);  // a new picture never is the same
  sum.linked = 6;
  CHECK(sum.at(values(6, {4, 3}, 1)) == "s1f1r1" && sum.before == 0);  // another epoch
  sum.constant = 3;
  sum.runner.fail();
  CHECK(sum.sum == 0 && sum.constant == 7 && sum.stage.life == Life::kCold);
}

void background() {
  Sum sum;
  Stage& stage = sum.stage;
  Stage::Rules rules = rules_of(3, {0, 1});
  rules.background = true;
  stage = Stage(rules, 2, {});
  CHECK(!stage.in_background());
  sum.linked = 4;
  sum.at(values(0, {1, 1}));
  stage.ran = false;
  CHECK(stage.life == Life::kWarm && stage.in_background());
  const auto start = [&](std::int64_t t_ns, float given) {
    sum.linked = given;
    const Moment now = values(t_ns, {t_ns, 1});
    sum.runner.feed(now, now.bits);
    stage.start(t_ns);
    sum.runner.execute();
  };
  start(7, 5);
  CHECK(stage.life == Life::kRenewing && stage.running && stage.t_ns == 0);
  sum.runner.take_up(false);
  CHECK(stage.life == Life::kWarm && stage.t_ns == 7 && !stage.running);
  start(8, 6);
  sum.runner.reset();  // its inputs went away meanwhile
  CHECK(stage.life == Life::kStale && sum.sum == 0);
  sum.runner.take_up(false);
  CHECK(stage.life == Life::kCold);
  sum.at(values(9, {2, 1}));
  start(10, 7);
  sum.runner.take_up(true);
  sum.runner.fail();
  CHECK(stage.life == Life::kFailed && stage.faulty && !stage.in_background());
  start(11, 8);  // tried again
  CHECK(stage.life == Life::kFailed);
  sum.runner.reset();
  CHECK(stage.life == Life::kStale && !stage.faulty);
  sum.runner.fail();
  sum.runner.take_up(false);
  CHECK(stage.life == Life::kFailed);
  sum.runner.reset();
  CHECK(stage.life == Life::kCold);
}

void streams() {
  Calls told;
  Stage::Rules rules = rules_of(1, {0});
  rules.stream = true;
  Stage ear{rules, 2, {}};
  Stage::Rules later = rules_of(3, {1});
  later.direct = 2;
  Stage behind{later, 2, {&ear}};
  float given = 1, state = 0, output = 0, shown = 0;
  mmedge::StreamRunner runner(&ear, {0, 20, 25, 1000});
  auto tensors = std::make_unique<Tensors>();
  tensors->states = {{&output, &state, sizeof state}};
  tensors->copies = {{&output, &shown, sizeof shown}};
  tensors->shown = {{&shown, sizeof shown}};
  tensors->stateful = true;
  auto hands = std::make_unique<Hands>(&told, '1', &given, 2.0f, &output);
  Hands& heard = *hands;
  runner.serve(std::move(tensors), std::move(hands));
  runner.reset();

  const auto at = [&](std::int64_t end, std::int64_t begin = 0, std::int64_t oldest = 0) {
    Moment now = moment(end * kMs, {end, 1});
    now.dated = 1;
    now.sounds[0] = {end, begin, oldest};
    ear.ran = false;
    heard.heard.clear();
    if (!runner.due(now, now.bits)) return;
    runner.feed(now, now.bits);
    runner.execute();
    runner.finish();
  };
  CHECK(behind.behind() && behind.hears(3) == 2 && behind.unheard() == 1 && ear.hears(1) == 1);
  at(19);
  CHECK(heard.heard.empty() && ear.life == Life::kCold);
  at(45);
  CHECK((heard.heard == std::vector<std::int64_t>{20, 40}) && ear.t_ns == 40 * kMs && shown == 2 &&
        state == 2);
  CHECK(behind.hears(3) == 3 && behind.unheard() == 0);
  runner.absent();
  CHECK(ear.life == Life::kHidden && shown == 0 && behind.hears(3) == 3);
  at(46);
  CHECK(heard.heard.empty() && ear.life == Life::kWarm && shown == 2);
  at(200, 0, 100);  // the window of the next step that can be read begins behind sample 100
  CHECK(heard.heard.front() == 140 && heard.heard.back() == 200 && runner.overruns() == 1);
  told.throws = "h1";
  bool failed = false;
  try {
    at(240);
  } catch (const std::runtime_error&) {
    failed = true;
  }
  runner.fail();
  told.throws.clear();
  CHECK(failed && ear.life == Life::kCold && behind.hears(3) == 2);
  at(261);
  CHECK((heard.heard == std::vector<std::int64_t>{260}));  // those that came are not tried again
  at(300, 290, 290);                                       // it began anew
  CHECK(heard.heard.empty() && ear.life == Life::kCold && shown == 0);
  runner.join();
  at(400, 290, 290);
  CHECK((heard.heard == std::vector<std::int64_t>{390}));  // the newest step alone
  CHECK(refuses([&] { mmedge::StreamRunner(&ear, {0, 0, 25, 1000}); }));
}

void costs() {
  Stage stage{rules_of(1, {0}), 1, {}};
  stage.took(0, 1'600'000);
  CHECK(stage.cost_ns == 1'600'000 && stage.took_ns == 1'600'000);
  stage.took(0, 9'000'000);
  CHECK(stage.cost_ns == 1'700'000);  // a stall does not make it heavy
  stage.took(0, 1'650'000);
  CHECK(stage.cost_ns == 1'700'000 && stage.took_ns == 1'650'000);
  stage.took(0, 0);
  CHECK(stage.cost_ns == 1'700'000 - 1'700'000 / 16);
  CHECK(refuses([] { Stage(rules_of(1, {1}), 1, {}); }));
  CHECK(refuses([] { Stage(rules_of(1, {}), 63, {}); }));
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
  after_a_failure();
  heavy();
  late();
  spans();
  changes_and_states();
  background();
  streams();
  costs();
  runs_elsewhere();
}
