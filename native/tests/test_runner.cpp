#include <memory>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "graph/runner.hpp"
#include "graph/stream.hpp"
#include "graph_stages.hpp"

namespace {

using namespace mmedge::tests;
using mmedge::Life;
using mmedge::Moment;
using mmedge::Runner;
using mmedge::Stage;
using mmedge::Tensors;

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

void mistakes() {
  Stage stage{rules_of(1, {0}), 1, {}};
  Runner runner(&stage);
  for (const bool served : {false, true}) {
    bool refused = false;
    try {
      served ? runner.execute() : runner.reset();
    } catch (const std::logic_error&) {
      refused = true;
    }
    CHECK(refused);
    Calls calls;
    runner.serve(std::make_unique<Tensors>(), std::make_unique<Hands>(&calls, '1', nullptr, 1.0f, nullptr));
  }
}

// A run that is handed to a thread of its own: the way there and back is not the engine's time.
void runs_elsewhere() {
  Stage stage{rules_of(1, {0}), 1, {}};
  stage.ran_within(100, 1'000'100);
  CHECK(stage.took(50, 1'300'000) == 1'000'000 && stage.took_ns == 1'000'000);
  CHECK(stage.span().ran_from_ns == 100 && stage.span().ran_until_ns == 1'000'100);
  CHECK(stage.took(50, 1'300'000) == 1'299'950);  // it was of that run alone
  stage.ran_within(100, 1'000'100);
  CHECK(stage.took(200, 1'300'000) == 1'299'800);  // what does not lie within the run was of another one
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

}  // namespace

int main() {
  changes_and_states();
  background();
  streams();
  mistakes();
  costs();
  runs_elsewhere();
}
