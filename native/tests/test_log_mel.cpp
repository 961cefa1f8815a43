#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "check.hpp"
#include "log_mel.hpp"
#include "sliding_log_mel.hpp"

namespace {

using mmedge::LogMel;
using mmedge::LogMelSpec;

constexpr double kTau = 6.283185307179586476925286766559;

// The definition, in double.
std::vector<double> naive(const LogMelSpec& spec, const std::vector<float>& filters,
                          const std::vector<float>& pcm) {
  std::vector<double> out;
  for (std::size_t start = 0; start + spec.window_samples <= pcm.size(); start += spec.hop_samples) {
    std::vector<double> mel(spec.n_mels, 0.0);
    for (std::size_t bin = 0; bin <= spec.n_fft / 2; ++bin) {
      double x = 0.0, y = 0.0;
      for (std::size_t n = 0; n < spec.window_samples; ++n) {
        const double window =
            0.5 - 0.5 * std::cos(kTau * static_cast<double>(n) / static_cast<double>(spec.window_samples));
        const double phase =
            kTau * static_cast<double>((bin * n) % spec.n_fft) / static_cast<double>(spec.n_fft);
        x += window * static_cast<double>(pcm[start + n]) * std::cos(phase);
        y += window * static_cast<double>(pcm[start + n]) * std::sin(phase);
      }
      for (std::size_t m = 0; m < spec.n_mels; ++m)
        mel[m] += static_cast<double>(filters[bin * spec.n_mels + m]) * (x * x + y * y);
    }
    for (const double power : mel)
      out.push_back(
          (std::log(std::max(power, static_cast<double>(spec.floor))) - static_cast<double>(spec.mean)) /
          static_cast<double>(spec.std));
  }
  return out;
}

void equals_definition(std::size_t n_fft, std::size_t window, std::size_t hop, std::size_t samples) {
  const LogMelSpec spec{n_fft, window, hop, 5, 1e-6f, -3.0f, 2.0f};
  std::mt19937 random(static_cast<unsigned>(n_fft + window));
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> pcm(samples), filters((n_fft / 2 + 1) * spec.n_mels);
  for (float& value : pcm) value = uniform(random);
  for (float& value : filters) value = std::max(0.0f, uniform(random));
  LogMel log_mel(spec, filters.data());
  const std::vector<double> want = naive(spec, filters, pcm);
  CHECK(want.size() == log_mel.frames(samples) * spec.n_mels);
  std::vector<float> got(want.size());
  log_mel.compute(pcm.data(), pcm.size(), got.data());
  for (std::size_t i = 0; i < want.size(); ++i)
    CHECK(std::fabs(static_cast<double>(got[i]) - want[i]) < 1e-5);
}

void hostile() {
  const std::vector<float> filters(5 * 2, 1.0f);
  const LogMelSpec good{8, 8, 4, 2, 1e-6f, 0.0f, 1.0f};
  const auto make = [&](LogMelSpec spec) {
    return [&filters, spec] { LogMel log_mel(spec, filters.data()); };
  };
  CHECK(!refuses(make(good)));
  for (auto broken : {LogMelSpec{0, 0, 4, 2, 1e-6f, 0, 1}, LogMelSpec{8, 9, 4, 2, 1e-6f, 0, 1},
                      LogMelSpec{8, 8, 0, 2, 1e-6f, 0, 1}, LogMelSpec{8, 8, 4, 0, 1e-6f, 0, 1},
                      LogMelSpec{8, 8, 4, 2, 0, 0, 1}, LogMelSpec{8, 8, 4, 2, 1e-6f, 0, -1}})
    CHECK(refuses(make(broken)));
  LogMel log_mel(good, filters.data());
  CHECK(log_mel.frames(7) == 0 && log_mel.frames(8) == 1 && log_mel.frames(12) == 2);
  log_mel.compute(nullptr, 0, nullptr);
}

// Windows that begin whole hops apart share frames; that changes no bit, wherever they lie.
void slides() {
  const LogMelSpec spec{16, 12, 5, 3, 1e-6f, 0.5f, 2.0f};
  const std::vector<float> filters(9 * 3, 0.5f);
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> pcm(3000);
  for (float& value : pcm) value = uniform(random);
  constexpr std::size_t kSamples = 60;
  LogMel log_mel(spec, filters.data());
  mmedge::SlidingLogMel sliding(spec, filters.data(), kSamples);
  CHECK(sliding.frames() == log_mel.frames(kSamples) && sliding.samples() == kSamples);
  std::vector<float> want(sliding.frames() * 3), got(want.size());
  std::size_t whole = 0, end = 100;
  for (int turn = 0; turn < 600; ++turn) {
    end = turn % 97 == 96 ? 100 + turn : end + std::vector<std::size_t>{5, 0, 3, 2, 5, 10}[random() % 6];
    const auto at = static_cast<std::int64_t>(end);
    const std::size_t wanted = sliding.wanted(at);
    whole += wanted == kSamples;
    CHECK(sliding.compute(pcm.data() + (end - wanted), at, got.data()));
    log_mel.compute(pcm.data() + (end - kSamples), kSamples, want.data());
    CHECK(got == want);
  }
  CHECK(whole < 200);
  const auto at = static_cast<std::int64_t>(end);
  const std::vector<float> other(kSamples, 0.25f);
  CHECK(!sliding.compute(other.data(), at, got.data()) && sliding.wanted(at) == kSamples);
  CHECK(sliding.compute(other.data(), at, got.data()) && got != want);
  sliding.forget();
  CHECK(sliding.wanted(at) == kSamples);
  CHECK(refuses([&] { mmedge::SlidingLogMel none(spec, filters.data(), 11); }));
}

}  // namespace

int main() {
  for (const std::size_t n_fft : {1u, 2u, 4u, 8u, 64u, 256u, 3u, 6u, 50u, 100u})
    for (const std::size_t window : {n_fft, (n_fft + 1) / 2})
      equals_definition(n_fft, window, std::max<std::size_t>(1, window / 3), 4 * n_fft + 3);
  hostile();
  slides();
}
