#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"
#include "graph/graph.hpp"
#include "graph/spans.hpp"
#include "graph_stages.hpp"

namespace {

using namespace mmedge::tests;
using mmedge::Graph;
using mmedge::GraphHands;
using mmedge::Life;
using mmedge::Moment;
using mmedge::Runner;
using mmedge::Stage;
using mmedge::Tensors;

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

void mistakes() {
  Two two;
  CHECK(refuses([&] { Graph({{&two.runners[0], {0}, {}}}, 2); }));
  CHECK(refuses([&] { Graph({{&two.runners[0], {}, {1}}}, 2); }));
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

}  // namespace

int main() {
  rules();
  failures();
  after_a_failure();
  heavy();
  late();
  mistakes();
  spans();
}
