#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "capture/mixer.hpp"
#include "check.hpp"

using mmedge::Mixer;

namespace {

constexpr std::int64_t kRate = 8;
mmedge::Channels of(const std::vector<float>& rows, std::size_t count) {
  return {rows.data(), count, rows.size() / count, rows.size() / count};
}

const std::vector<float> kRows{1, 2, 3, 10, 20, 30, 100, 200, 300};  // three channels of three samples

std::vector<float> mixed(const std::vector<std::size_t>& channels, const std::vector<float>& rows = kRows,
                         std::size_t count = 3) {
  std::vector<float> out(rows.size() / count);
  Mixer(channels).mix(of(rows, count), kRate, out.data());
  return out;
}

void means() {
  CHECK((mixed({}) == std::vector<float>{37, 74, 111}) && (mixed({1}) == std::vector<float>{10, 20, 30}));
  CHECK((mixed({2, 0}) == std::vector<float>{50.5, 101, 151.5}));
  CHECK((mixed({}, {0.25f, -1}, 1) == std::vector<float>{0.25f, -1}) && mixed({0}, {}, 1).empty());
  CHECK((mixed({}, {3e38f, 3e38f}, 2) == std::vector<float>{3e38f}));  // the sum is taken in double
}

void what_is_not_there_is_refused() {
  CHECK(refuses([] { mixed({3}); }) && refuses([] { mixed({0, 5}); }));
  CHECK(refuses([] { mixed({1}, {0}, 1); }) &&
        refuses([] { Mixer({}).mix({nullptr, 0, 0, 0}, kRate, nullptr); }));
}

void weak_mixes_are_told_after_two_seconds() {
  const std::vector<float> opposite{0.5, 0.5, 0.5, 0.5, -0.5, -0.5, -0.5, -0.5, 0, 0, 0, 0};
  std::vector<float> out(4), wide(12);
  Mixer both({0, 1}), silent({2}), own({0}), all({});
  for (int round = 0; round < 2; ++round) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const auto weak = both.mix(of(opposite, 3), kRate, out.data());
      const auto still = silent.mix(of(opposite, 3), kRate, out.data());
      CHECK(!own.mix(of(opposite, 3), kRate, out.data()) && weak.has_value() == (quarter == 3));
      CHECK(still.has_value() == (quarter == 3) && !all.mix(of(opposite, 1), kRate, wide.data()));
      if (weak) CHECK(!weak->silent && weak->channels == 2 && weak->decibels == 99 && weak->loudest == 0);
      if (still) CHECK(still->silent && still->channels == 1 && still->loudest == 0);
    }
  }
}

void what_is_no_number_is_not_judged() {
  const std::vector<float> broken{std::numeric_limits<float>::quiet_NaN(), 1, -1, -1};
  std::vector<float> out(2);
  Mixer mixer({});
  for (int i = 0; i < 99; ++i) CHECK(!mixer.mix(of(broken, 2), kRate, out.data()));
  CHECK(std::isnan(out[0]) && out[1] == 0);
}

}  // namespace

int main() {
  means();
  what_is_not_there_is_refused();
  weak_mixes_are_told_after_two_seconds();
  what_is_no_number_is_not_judged();
  return 0;
}
