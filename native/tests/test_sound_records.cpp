#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "sound_records.hpp"

namespace {

using mmedge::SampleRing;
using mmedge::SoundReader;
using mmedge::SoundRecord;
using mmedge::SoundRun;

std::string bytes(const SoundRecord& record) {
  return {reinterpret_cast<const char*>(&record), sizeof record};
}

SoundRecord block(std::int64_t arrive_ns, std::int64_t end, std::int64_t n, std::uint32_t ring = 1) {
  SoundRecord record;
  record.ring = ring;
  record.arrive_ns = arrive_ns;
  record.end = end;
  record.n = n;
  return record;
}

std::vector<std::string_view> views(const std::vector<std::string>& records) {
  return {records.begin(), records.end()};
}

void runs() {
  SampleRing ring = SampleRing::shared(8), other = SampleRing::shared(8);
  SoundReader reader;
  reader.add(1, "ear", SampleRing::attach(ring.fd()));
  reader.add(2, "mouth", SampleRing::attach(other.fd()));
  std::vector<std::string> records;
  for (int i = 1; i <= 4; ++i) {
    const std::vector<float> samples(3, static_cast<float>(i));
    records.push_back(bytes(block(i, ring.write(samples.data(), 3), 3)));
  }
  records.push_back(bytes(block(5, 0, 0, 2)));
  std::optional<SoundRun> run = reader.read(views(records));
  CHECK(run && run->stream() == "ear" && run->blocks().size() == 4);
  // The ring holds eight samples of twelve: of the first block nothing is left, of the second two.
  CHECK(run->blocks()[0].samples == 0 && run->blocks()[0].lost == 3);
  CHECK(run->blocks()[1].samples == 2 && run->blocks()[1].lost == 1);
  CHECK(run->samples(run->blocks()[3])[2] == 4.0f);
  SoundRun later = run->split(3);
  CHECK(run->blocks().size() == 2 && later.blocks().size() == 2 && later.stream() == "ear");
  CHECK(later.samples(later.blocks()[0])[0] == 3.0f && later.samples(later.blocks()[1])[2] == 4.0f);
  CHECK(run->samples(run->blocks()[1])[1] == 2.0f && run->split(99).blocks().empty());
  const SoundRun all = run->split(0);
  CHECK(all.blocks().size() == 2 && run->blocks().empty() && run->split(1).blocks().empty());
  // One of another ring, and one that arrived before the one in front of it, begin another run.
  SoundReader anew;
  anew.add(1, "ear", SampleRing::attach(ring.fd()));
  anew.add(2, "mouth", SampleRing::attach(other.fd()));
  CHECK(anew.read(views({records[4], records[0]}))->blocks().size() == 1);
  CHECK(anew.read(views({records[0], bytes(block(0, 6, 3))}))->blocks().size() == 1);
  // What was given before is not given again.
  CHECK(refuses([&] { anew.read(views({records[0]})); }));
  CHECK(anew.read(views({records[3]}))->blocks().size() == 1);
  CHECK(!reader.read(views({bytes(block(1, 3, 3, 9))})) && !reader.read({}) && !reader.read({"\x93"}));
}

void hostile() {
  SampleRing ring = SampleRing::shared(8);
  std::mt19937_64 random(5);
  for (int turn = 0; turn < 20'000; ++turn) {
    SoundReader reader;
    reader.add(1, "ear", SampleRing::attach(ring.fd()));
    SoundRecord record = block(static_cast<std::int64_t>(random()), static_cast<std::int64_t>(random()), 4);
    if (turn % 3 == 0) record.n = static_cast<std::int64_t>(random() >> (random() % 64));
    if (turn % 5 == 0) record.lost = static_cast<std::int64_t>(random() >> (random() % 64));
    std::string data = bytes(record);
    if (turn % 7 == 0) data.resize(random() % 100);
    if (turn % 11 == 0 && !data.empty())
      data[random() % data.size()] ^= static_cast<char>(1 + random() % 255);
    try {
      const std::optional<SoundRun> run = reader.read({data, data});
      if (run) CHECK(run->blocks().size() <= 2 && run->blocks()[0].samples <= 8);
    } catch (const std::invalid_argument&) {
      CHECK(!data.empty());
    }
  }
  SoundReader reader;
  reader.add(1, "ear", SampleRing::attach(ring.fd()));
  const auto beyond = block(1, std::numeric_limits<std::int64_t>::max(), SoundRecord::kMaxSamples);
  CHECK(reader.read(views({bytes(beyond)}))->blocks()[0].samples == 0);
  const auto before = block(1, std::numeric_limits<std::int64_t>::min(), SoundRecord::kMaxSamples);
  CHECK(refuses([&] { reader.read(views({bytes(before)})); }));
}

}  // namespace

int main() {
  runs();
  hostile();
}
