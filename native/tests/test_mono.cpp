#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "check.hpp"
#include "mono.hpp"

namespace {

using mmedge::Channels;
using mmedge::mono;

void mean_and_powers() {
  for (const std::size_t samples : {0u, 1u, 7u, 8u, 255u, 256u, 257u, 1000u}) {
    const std::size_t stride = samples + 3;
    std::vector<float> rows(3 * stride, 1e30f), out(samples + 1, -1.0f);
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t i = 0; i < samples; ++i)
        rows[c * stride + i] = static_cast<float>((i * 37 + c * 101) % 65536) / 32768.0f - 1.0f;
    const Channels channels{rows.data(), 3, samples, stride};
    for (const std::vector<std::size_t>& chosen :
         std::vector<std::vector<std::size_t>>{{0, 1, 2}, {2}, {2, 0}}) {
      const std::vector<double> powers = mono(channels, chosen, out.data());
      CHECK(powers.size() == 4 && out[samples] == -1.0f);
      double mixed = 0.0, first = 0.0;
      for (std::size_t i = 0; i < samples; ++i) {
        double sum = 0.0;
        for (const std::size_t c : chosen) sum += static_cast<double>(rows[c * stride + i]);
        const auto want = static_cast<float>(sum / static_cast<double>(chosen.size()));
        CHECK(out[i] == want);
        mixed += static_cast<double>(want) * static_cast<double>(want);
        first += static_cast<double>(rows[i]) * static_cast<double>(rows[i]);
      }
      CHECK(std::fabs(powers[3] - mixed) <= 1e-12 * mixed && std::fabs(powers[0] - first) <= 1e-12 * first);
    }
  }
}

void hostile() {
  const float rows[4] = {1.0f, std::numeric_limits<float>::quiet_NaN(), 3.4e38f, 3.4e38f};
  float out[2];
  const Channels channels{rows, 2, 2, 2};
  const std::vector<double> powers = mono(channels, {0, 1}, out);
  CHECK(out[0] == 1.7e38f && std::isnan(out[1]) && std::isnan(powers[0]) && std::isfinite(powers[1]));
  CHECK(refuses([&] { mono(channels, {}, out); }));
  CHECK(refuses([&] { mono(channels, {2}, out); }));
}

}  // namespace

int main() {
  mean_and_powers();
  hostile();
}
