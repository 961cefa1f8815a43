// A result as it lies in its slot, checked before it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "attach/protocol.hpp"

namespace mmedge::attach {

// Looks at the bytes of a slot; nothing is copied but the head, and each bound is taken from that copy: a
// broken pipeline may write to the slot meanwhile. What is returned points into the slot.
class RecordView {
 public:
  RecordView() = default;
  // Throws std::runtime_error unless `size` bytes of `data` (aligned to 8) are a whole record of this
  // version, each of its strings with an end.
  RecordView(const std::uint8_t* data, std::size_t size);

  const Record& head() const { return head_; }
  // nullptr where there is none of that name.
  const Task* task(std::string_view name) const;
  const Picture* picture(std::string_view input) const;
  const Picture* picture(std::size_t index) const { return pictures() + index; }
  std::string_view json() const {
    return {reinterpret_cast<const char*>(data_ + head_.json_at), static_cast<std::size_t>(head_.json_size)};
  }

 private:
  const Task* tasks() const { return reinterpret_cast<const Task*>(data_ + sizeof(Record)); }
  const Picture* pictures() const { return reinterpret_cast<const Picture*>(tasks() + head_.tasks); }

  const std::uint8_t* data_ = nullptr;
  Record head_{};
};

// Throws std::runtime_error unless a picture's bytes are as many as its format takes at its size, as far as
// the format is known.
void check_size(const Picture& picture);

}  // namespace mmedge::attach
