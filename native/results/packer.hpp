// Writes MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), each value in its shortest
// form but for floats, which are of 64 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mmedge {

// Never allocates once it has held the longest text.
class Packer {
 public:
  void clear() { text_.clear(); }
  std::string_view text() const { return text_; }

  void nil() { byte(0xc0); }
  void boolean(bool value) { byte(value ? 0xc3 : 0xc2); }
  void number(std::int64_t value) {
    if (value >= -32 && value < 128)
      byte(static_cast<std::uint8_t>(value));
    else
      tagged(0xd3, static_cast<std::uint64_t>(value), 8);
  }
  void real(double value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    tagged(0xcb, bits, 8);
  }
  void string(std::string_view value) {
    if (value.size() < 32)
      byte(static_cast<std::uint8_t>(0xa0 | value.size()));
    else
      sized(value.size(), 0xd9, 0xda, 0xdb);
    text_ += value;
  }
  void binary(std::string_view value) {
    sized(value.size(), 0xc4, 0xc5, 0xc6);
    text_ += value;
  }
  // So many values follow.
  void array(std::size_t n) { counted(n, 0x90, 0xdc); }
  // So many pairs of key and value follow.
  void map(std::size_t n) { counted(n, 0x80, 0xde); }
  // A value that was packed elsewhere.
  void packed(std::string_view value) { text_ += value; }

 private:
  void byte(std::uint8_t value) { text_.push_back(static_cast<char>(value)); }
  void tagged(std::uint8_t tag, std::uint64_t value, int bytes) {
    byte(tag);
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) byte(static_cast<std::uint8_t>(value >> shift));
  }
  void sized(std::size_t n, std::uint8_t one, std::uint8_t two, std::uint8_t four) {
    if (n > UINT32_MAX) throw std::length_error("a text of 4 GiB or more cannot be packed");
    n < 0x100 ? tagged(one, n, 1) : n < 0x10000 ? tagged(two, n, 2) : tagged(four, n, 4);
  }
  void counted(std::size_t n, std::uint8_t few, std::uint8_t many) {
    if (n > UINT32_MAX) throw std::length_error("a list of 2^32 or more values cannot be packed");
    if (n < 16)
      byte(static_cast<std::uint8_t>(few | n));
    else
      n < 0x10000 ? tagged(many, n, 2) : tagged(static_cast<std::uint8_t>(many + 1), n, 4);
  }

  std::string text_;
};

}  // namespace mmedge
