#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>

#include "check.hpp"
#include "decimals.hpp"

namespace {

using mmedge::round_decimals;

// The definition: printf rounds the exact binary value, a tie to the even digit.
double printed(double value, int digits) {
  char text[400];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return std::strtod(text, nullptr);
}

bool same(double a, double b) { return a == b && std::signbit(a) == std::signbit(b); }

void equals_definition() {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> exponent(-12.0, 17.0);
  std::uniform_int_distribution<long long> whole(-4'000'000, 4'000'000);
  for (int round = 0; round < 200'000; ++round) {
    const int digits = round % 7;
    const double wild = std::pow(10.0, exponent(random)) * (round % 2 ? 1.0 : -1.0);
    const double tie = static_cast<double>(whole(random)) / 2000.0,
                 us = static_cast<double>(whole(random)) / 1e6;
    for (const double value : {wild, tie, us, std::nextafter(tie, 1e9), std::nextafter(tie, -1e9)})
      CHECK(same(round_decimals(value, digits), printed(value, digits)));
  }
}

void edges() {
  CHECK(round_decimals(0.0625, 3) == 0.062 &&
        round_decimals(0.1875, 3) == 0.188);                                      // ties that binary can hold
  CHECK(round_decimals(2.675, 2) == 2.67 && round_decimals(0.0005, 3) == 0.001);  // and such that it cannot
  CHECK(same(round_decimals(-0.0001, 3), -0.0) && same(round_decimals(0.0, 3), 0.0));
  const double infinite = std::numeric_limits<double>::infinity();
  CHECK(round_decimals(infinite, 4) == infinite && round_decimals(-infinite, 4) == -infinite);
  CHECK(std::isnan(round_decimals(std::nan(""), 4)));
  CHECK(round_decimals(std::numeric_limits<double>::max(), 4) == std::numeric_limits<double>::max());
  CHECK(round_decimals(std::numeric_limits<double>::denorm_min(), 15) == 0.0);
  CHECK(same(round_decimals(4'503'599'627'370'495.5, 3), 4'503'599'627'370'495.5));
  CHECK(refuses([] { round_decimals(1.0, -1); }) && refuses([] { round_decimals(1.0, 16); }));
}

}  // namespace

int main() {
  equals_definition();
  edges();
}
