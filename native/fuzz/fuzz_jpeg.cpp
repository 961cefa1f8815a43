// Any bytes as a JPEG picture: a verdict, and no more bytes unused than there are.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "jpeg_scan.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::unique_ptr<std::uint8_t[]> exactly(new std::uint8_t[size]);
  if (size > 0) std::memcpy(exactly.get(), data, size);
  const std::ptrdiff_t unused = mmedge::jpeg_unused(exactly.get(), size);
  if (unused < mmedge::kJpegOther || unused > static_cast<std::ptrdiff_t>(size)) std::abort();
  return 0;
}
