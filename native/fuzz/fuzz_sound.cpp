// Any records of a queue that another process writes: refused, or runs of blocks whose samples are all there.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "sound_records.hpp"

namespace {

using namespace mmedge;

std::string record(FuzzedDataProvider& in) {
  if (in.ConsumeIntegralInRange(0, 7) == 0) return in.ConsumeRandomLengthString(80);
  SoundRecord block;
  const auto small = [&] { return in.ConsumeIntegralInRange<std::int64_t>(-2, 200); };
  block.quality = in.ConsumeIntegralInRange<std::uint8_t>(0, 3);
  block.ring = in.ConsumeIntegralInRange<std::uint32_t>(0, 2);
  block.arrive_ns = in.ConsumeBool() ? small() : in.ConsumeIntegral<std::int64_t>();
  block.end = in.ConsumeBool() ? small() : in.ConsumeIntegral<std::int64_t>();
  block.n = small();
  block.lost = in.ConsumeBool() ? small() : in.ConsumeIntegral<std::int64_t>();
  return {reinterpret_cast<const char*>(&block), sizeof block};
}

void check(const SoundRun& run) {
  double sum = 0.0;  // whoever reads beyond is seen by AddressSanitizer
  for (const SoundRun::Block& block : run.blocks())
    for (std::size_t i = 0; i < block.samples; ++i) sum += static_cast<double>(run.samples(block)[i]);
  if (sum < 0.0) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider in(data, size);
  SoundReader reader;
  for (std::uint32_t number = 0; number < 2; ++number) {
    SampleRing ring(in.ConsumeIntegralInRange(1, 100));
    const std::vector<float> sound(in.ConsumeIntegralInRange<std::size_t>(0, 300), 0.5f);
    ring.write(sound.data(), sound.size());
    reader.add(number, "microphone", std::move(ring));
  }
  while (in.remaining_bytes() > 0) {
    std::vector<std::string> records;
    for (auto left = in.ConsumeIntegralInRange(1, 6); left > 0; --left) records.push_back(record(in));
    try {
      auto run = reader.read({records.begin(), records.end()});
      if (!run) continue;
      check(*run);
      check(run->split(in.ConsumeIntegralInRange<std::int64_t>(-2, 200)));
      check(*run);
    } catch (const std::invalid_argument&) {  // what no writer leaves is refused
    }
  }
  return 0;
}
