#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "log_mel.hpp"
#include "logarithm.hpp"
#include "sliding_log_mel.hpp"
#include "turns.hpp"

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

std::vector<float> noise(std::size_t samples, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(samples);
  for (float& value : values) value = uniform(random);
  return values;
}

bool same(const float* a, const float* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

// Whatever vectors compute it, in whatever lane and beside whatever else: one frame alone gives the same
// bits.
void same_bits_everywhere(std::size_t n_fft) {
  const std::size_t window = n_fft - n_fft / 5, hop = n_fft / 3, frames = 21;
  const LogMelSpec spec{n_fft, window, hop, 7, 1e-6f, -3.0f, 2.0f};
  const std::vector<float> filters = noise((n_fft / 2 + 1) * spec.n_mels, 1);
  std::vector<float> pcm = noise(window + (frames - 1) * hop, 2);
  constexpr std::size_t kHarmed = 2;
  pcm[hop + 1] = std::numeric_limits<float>::quiet_NaN();  // harms the first two frames, and no other
  const mmedge::LogMelKernels kernels = mmedge::log_mel_kernels();
  CHECK(kernels.count >= 1 && kernels.found[0].lanes == 2);
  std::vector<float> want;
  for (std::size_t i = 0; i < kernels.count; ++i) {
    LogMel log_mel(spec, filters.data(), kernels.found[i]);
    std::vector<float> all(frames * spec.n_mels), some(all.size());
    log_mel.compute(pcm.data(), pcm.size(), all.data());
    for (std::size_t frame = 0; frame < frames; ++frame) {
      for (std::size_t m = 0; m < spec.n_mels; ++m)
        CHECK(std::isnan(all[frame * spec.n_mels + m]) == (frame < kHarmed));
      for (std::size_t count = 1; count <= 9 && frame + count <= frames; ++count) {
        log_mel.compute(pcm.data() + frame * hop, window + (count - 1) * hop, some.data());
        for (std::size_t k = 0; k < count; ++k)
          CHECK(frame + k < kHarmed ||
                same(some.data() + k * spec.n_mels, all.data() + (frame + k) * spec.n_mels, spec.n_mels));
      }
    }
    if (i == 0) want = all;
    CHECK(same(want.data() + kHarmed * spec.n_mels, all.data() + kHarmed * spec.n_mels,
               (frames - kHarmed) * spec.n_mels));
  }
}

// One number for the bits of features, which every processor and compiler has to reach.
std::uint64_t digest(std::size_t n_fft) {
  const std::size_t window = n_fft - n_fft / 5, hop = n_fft / 3;
  const LogMelSpec spec{n_fft, window, hop, 8, 1e-6f, -3.0f, 2.0f};
  std::mt19937 random(static_cast<unsigned>(n_fft));
  const auto value = [&random] { return static_cast<float>(random() >> 8) / 16777216.0f; };
  std::vector<float> filters((n_fft / 2 + 1) * spec.n_mels), pcm(window + 12 * hop);
  for (float& weight : filters) weight = value();
  for (float& sample : pcm) sample = value() - 0.5f;
  std::vector<float> out(13 * spec.n_mels);
  LogMel(spec, filters.data()).compute(pcm.data(), pcm.size(), out.data());
  std::uint64_t hash = 14695981039346656037u;
  for (const float feature : out) {
    std::uint32_t bits;
    std::memcpy(&bits, &feature, sizeof bits);
    hash = (hash ^ bits) * 1099511628211u;
  }
  return hash;
}

void logarithms() {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> exponent(-149.0, 1000.0), near(0.5, 2.0);
  for (int turn = 0; turn < 200000; ++turn) {
    const double x = turn % 2 == 0 ? std::exp2(exponent(random)) : near(random);
    const double want = std::log(x);
    CHECK(std::fabs(mmedge::logarithm(x) - want) <= 2e-12 * std::fabs(want));
  }
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(mmedge::logarithm(1.0) == 0.0 && mmedge::logarithm(infinity) == infinity);
  CHECK(std::isnan(mmedge::logarithm(std::numeric_limits<double>::quiet_NaN())));
}

void turns() {
  for (const std::size_t n : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 12u, 100u, 512u, 1021u, 65536u})
    for (std::size_t k = 0; k < n; ++k) {
      const double phase = kTau * static_cast<double>(k) / static_cast<double>(n);
      const mmedge::Turn turn = mmedge::turn(k, n);
      CHECK(std::fabs(turn.cosine - std::cos(phase)) < 2e-15 &&
            std::fabs(turn.sine - std::sin(phase)) < 2e-15);
      if (4 * k == n) CHECK(turn.cosine == 0.0 && turn.sine == 1.0);
      if (8 * k == n) CHECK(std::fabs(turn.cosine - turn.sine) < 2e-16);
    }
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
  mmedge::SlidingLogMel reading(spec, filters.data(), kSamples);
  mmedge::SampleRing ring(2500);  // the first windows are lost in part: they read as zeros
  ring.write(pcm.data(), pcm.size());
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
    const std::vector<float> left(pcm.begin(), pcm.begin() + 500);
    std::fill(pcm.begin(), pcm.begin() + 500, 0.0f);
    log_mel.compute(pcm.data() + (end - kSamples), kSamples, want.data());
    std::copy(left.begin(), left.end(), pcm.begin());
    reading.read(ring, at, got.data());
    CHECK(got == want);
  }
  CHECK(whole < 200);
  const auto at = static_cast<std::int64_t>(end);
  const std::vector<float> other(kSamples, 0.25f);
  CHECK(!sliding.compute(other.data(), at, got.data()) && sliding.wanted(at) == kSamples);
  CHECK(sliding.compute(other.data(), at, got.data()) && got != want);
  sliding.forget();
  CHECK(sliding.wanted(at) == kSamples);
  for (const std::int64_t far :
       {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()})
    CHECK(refuses([&] { reading.read(ring, far, got.data()); }) && refuses([&] { sliding.wanted(far); }));
  CHECK(refuses([&] { mmedge::SlidingLogMel none(spec, filters.data(), 11); }));
}

}  // namespace

int main() {
  logarithms();
  turns();
  for (const std::size_t n_fft : {1u,  2u,  4u,  8u,  64u,  256u, 3u,   6u,   10u,  12u,  50u,
                                  54u, 60u, 90u, 96u, 100u, 150u, 250u, 360u, 400u, 486u, 14u})
    for (const std::size_t window : {n_fft, (n_fft + 1) / 2})
      equals_definition(n_fft, window, std::max<std::size_t>(1, window / 3), 2 * n_fft + 3);
  for (const std::size_t n_fft : {64u, 60u, 90u, 45u, 14u}) same_bits_everywhere(n_fft);
  CHECK(digest(512) == 0xd816bbbdd811c343 && digest(400) == 0x7428ba43f24fcfb2);
  CHECK(digest(480) == 0xa912bf5b07eecc3b && digest(45) == 0x2bb254137f51264f);
  hostile();
  slides();
}
