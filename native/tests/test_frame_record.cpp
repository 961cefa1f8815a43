#include <random>
#include <string>

#include "check.hpp"
#include "frame_record.hpp"

namespace {

using mmedge::FrameRecord;

std::string bytes(const FrameRecord& record) {
  return {reinterpret_cast<const char*>(&record), sizeof record};
}

void reads_what_was_written() {
  FrameRecord record;
  record.damaged = 1;
  record.ring = 7;
  record.index = 3;
  record.slot_seq = 1ULL << 60;
  record.unchanged_ns = -5;
  const std::string whole = bytes(record) + "camera";
  const FrameRecord read = FrameRecord::parse(whole);
  CHECK(read.damaged == 1 && read.ring == 7 && read.index == 3);
  CHECK(read.slot_seq == 1ULL << 60 && read.unchanged_ns == -5);
  CHECK(FrameRecord::common(whole) == "camera");
  CHECK(FrameRecord::common(bytes(record)).empty());
}

void refuses_what_nobody_writes() {
  const std::string good = bytes(FrameRecord{});
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK(refuses([&] { FrameRecord::parse(std::string_view(good).substr(0, n)); }));
  for (const std::size_t at : {0, 1, 2, 3}) {
    std::string bad = good;
    bad[at] = 9;
    CHECK(refuses([&] { FrameRecord::parse(bad); }));
  }
}

void any_bytes() {
  std::mt19937 random(1);
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string record(random() % 100, '\0');
    for (char& byte : record) byte = static_cast<char>(random());
    if (!record.empty()) record[0] = FrameRecord::kKind;
    if (record.size() > 3 && round % 2 == 0)  // flags that exist
      record[1] = static_cast<char>(record[1] & 1), record[2] = record[3] = 0;
    try {
      FrameRecord::parse(record);
      CHECK(record.size() >= sizeof(FrameRecord) && FrameRecord::common(record).size() < 100);
      ++accepted;
    } catch (const std::invalid_argument&) {
    }
  }
  CHECK(accepted > 1000);
}

}  // namespace

int main() {
  reads_what_was_written();
  refuses_what_nobody_writes();
  any_bytes();
}
