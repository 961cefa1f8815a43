#include "capture/programme.hpp"

namespace mmedge {
namespace {

constexpr std::size_t kPacket = 188;
constexpr std::uint8_t kSync = 0x47;
constexpr std::size_t kHead = 8, kCheck = 4;  // bytes of a section before and behind its body

std::uint32_t identifier(const std::uint8_t* at) { return (at[0] & 0x1fu) << 8 | at[1]; }
std::size_t length(const std::uint8_t* at) { return (at[0] & 0x0fu) << 8 | at[1]; }

}  // namespace

bool Programme::changed(const std::uint8_t* data, std::size_t n) {
  if (n == 0 || n % kPacket != 0 || data[0] != kSync) return false;
  bool changed = false;
  for (const std::uint8_t* packet = data; packet != data + n; packet += kPacket) {
    const std::uint32_t number = identifier(packet + 1);
    const bool begins = (packet[1] & 0x40) != 0;
    if (begins && (number == 0 || maps_.count(number) != 0)) changed |= table(number, packet);
  }
  return changed;
}

// Tables that lie in several packets, or are not whole, say nothing.
bool Programme::table(std::uint32_t number, const std::uint8_t* packet) {
  const std::size_t start = (packet[3] & 0x20) != 0 ? std::size_t{5} + packet[4] : 4;
  if (start >= kPacket || start + 1 + packet[start] >= kPacket) return false;
  const std::uint8_t* const section = packet + start + 1 + packet[start];
  const auto room = static_cast<std::size_t>(packet + kPacket - section);
  if (room <= kHead + kCheck) return false;
  const std::size_t whole = length(section + 1) + 3;
  if (whole < kHead + kCheck || whole > room || section[0] != (number == 0 ? 0 : 2)) return false;
  const std::uint8_t* const body = section + kHead;
  const std::size_t size = whole - kHead - kCheck;
  Table found;
  if (number == 0) {
    std::set<std::uint32_t> maps;
    for (std::size_t i = 0; i + 3 < size; i += 4)
      if (body[i] != 0 || body[i + 1] != 0) maps.insert(identifier(body + i + 2));
    found.assign(maps.begin(), maps.end());
    maps_.swap(maps);
  } else {
    if (size < 4) return false;
    for (std::size_t at = 4 + length(body + 2); at + 5 <= size; at += 5 + length(body + at + 3))
      found.push_back(std::uint32_t{body[at]} << 16 | identifier(body + at + 1));
  }
  return tables_.try_emplace(number, found).first->second != found;
}

}  // namespace mmedge
