// Any sound, NaN and infinity among it, and any features: refused, or the same bits from every kernel, and
// from windows that share frames.
#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "log_mel.hpp"
#include "sliding_log_mel.hpp"

namespace {

using namespace mmedge;

// A NaN has many forms, and which of two an addition keeps is not said.
void must_be_same(const std::vector<float>& one, const std::vector<float>& other) {
  for (std::size_t i = 0; i < one.size(); ++i)
    if (std::memcmp(&one[i], &other[i], sizeof one[i]) != 0 && !(std::isnan(one[i]) && std::isnan(other[i])))
      std::abort();
}

std::vector<float> floats(FuzzedDataProvider& in, std::size_t n) {
  std::vector<float> values(n, 0.25f);
  if (n > 0) in.ConsumeData(values.data(), n * sizeof(float));
  return values;
}

void one(FuzzedDataProvider& in) {
  const auto size = [&](std::size_t largest) { return in.ConsumeIntegralInRange<std::size_t>(0, largest); };
  LogMelSpec spec{size(130), size(130), size(60), size(12), 1e-6f, 0.0f, 1.0f};
  if (in.ConsumeBool())
    spec.floor = in.ConsumeFloatingPoint<float>(), spec.mean = in.ConsumeFloatingPoint<float>(),
    spec.std = in.ConsumeFloatingPoint<float>();
  const std::vector<float> filters = floats(in, (spec.n_fft / 2 + 1) * spec.n_mels);
  const std::size_t samples = size(400), moved = size(200);
  const std::vector<float> pcm = floats(in, samples + moved);
  LogMel first(spec, filters.data());
  std::vector<float> want(first.frames(samples) * spec.n_mels);
  first.compute(pcm.data() + moved, samples, want.data());
  const LogMelKernels kernels = log_mel_kernels();
  for (std::size_t k = 0; k < kernels.count; ++k) {
    std::vector<float> got(want.size(), 7.0f);
    LogMel(spec, filters.data(), kernels.found[k]).compute(pcm.data() + moved, samples, got.data());
    must_be_same(want, got);
  }
  SlidingLogMel sliding(spec, filters.data(), samples);
  const std::int64_t far = std::int64_t{1} << 62, end = in.ConsumeIntegralInRange<std::int64_t>(-far, far);
  std::vector<float> got(want.size());
  for (const std::size_t shift : {moved, std::size_t{0}}) {  // from the window before to this one
    const std::int64_t at = end - static_cast<std::int64_t>(shift);
    const float* const window_end = pcm.data() + pcm.size() - shift;
    if (!sliding.compute(window_end - sliding.wanted(at), at, got.data()) &&
        !sliding.compute(window_end - samples, at, got.data()))
      std::abort();
  }
  must_be_same(want, got);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider in(data, size);
  try {
    one(in);
  } catch (const std::invalid_argument&) {  // what cannot be is refused
  }
  return 0;
}
