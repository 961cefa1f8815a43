// Any datagrams as a transport stream, most of them of whole packets that begin as they should.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <vector>

#include "capture/programme.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider in(data, size);
  mmedge::Programme programme;
  while (in.remaining_bytes() > 0) {
    const bool whole = in.ConsumeBool();
    std::vector<std::uint8_t> datagram = in.ConsumeBytes<std::uint8_t>(
        whole ? 188 * in.ConsumeIntegralInRange<std::size_t>(1, 7) : in.ConsumeIntegral<std::uint16_t>());
    if (whole) {
      datagram.resize((datagram.size() + 187) / 188 * 188, 0xff);
      for (std::size_t at = 0; at < datagram.size(); at += 188) datagram[at] = 'G';
    }
    programme.changed(datagram.data(), datagram.size());
  }
  return 0;
}
