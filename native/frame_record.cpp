#include "frame_record.hpp"

#include <cstring>
#include <stdexcept>

namespace mmedge {

FrameRecord FrameRecord::parse(std::string_view record) {
  FrameRecord parsed;
  if (!is(record) || record.size() < sizeof parsed) throw std::invalid_argument("a picture has another size");
  std::memcpy(&parsed, record.data(), sizeof parsed);
  if (parsed.damaged > 1 || parsed.zero != 0)
    throw std::invalid_argument("a picture has a flag that does not exist");
  return parsed;
}

}  // namespace mmedge
