// Pictures that cross a process border: a record each, of which the first part has a fixed size.
#pragma once

#include <cstdint>
#include <string_view>

namespace mmedge {

// What is said of a picture, as it lies in the queue; numbers are little-endian, as on every machine that
// runs this. What it has in common with others of its camera follows in msgpack.
struct FrameRecord {
  static constexpr std::uint8_t kKind = 2;

  std::uint8_t kind = kKind;
  std::uint8_t damaged = 0;
  std::uint16_t zero = 0;
  std::uint32_t ring = 0;  // the number under which the ring was announced
  std::int64_t index = 0;  // of its slot, as long as that holds `slot_seq`
  std::uint64_t slot_seq = 0;
  std::int64_t seq = 0, capture_ns = 0, arrive_ns = 0, epoch = 0, uncertainty_ns = 0;
  std::int64_t unchanged_ns = 0;  // for how long the picture has been bit-identical

  static bool is(std::string_view record) {
    return !record.empty() && static_cast<std::uint8_t>(record[0]) == kKind;
  }
  // Throws std::invalid_argument for what no writer leaves.
  static FrameRecord parse(std::string_view record);
  // What the picture has in common with others; of a record that was parsed.
  static std::string_view common(std::string_view record) { return record.substr(sizeof(FrameRecord)); }
};
static_assert(sizeof(FrameRecord) == 72);

}  // namespace mmedge
