// Which tracks an MPEG transport stream says that it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

namespace mmedge {

// The type and number of each track, from the programme map tables. A stranger's bytes may come in.
class Programme {
 public:
  // Takes whole packets of a transport stream; whether a table differs from what it was. Other bytes say
  // nothing.
  bool changed(const std::uint8_t* data, std::size_t n);

 private:
  using Table = std::vector<std::uint32_t>;

  bool table(std::uint32_t number, const std::uint8_t* packet);

  std::map<std::uint32_t, Table> tables_;  // by packet identifier
  std::set<std::uint32_t> maps_;           // identifiers of the packets that hold one
};

}  // namespace mmedge
