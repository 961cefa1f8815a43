// Whether the compressed data of a JPEG picture is whole. Decoders conceal damage and report success.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmedge {

constexpr std::ptrdiff_t kJpegDamaged = -1;
constexpr std::ptrdiff_t kJpegOther = -2;  // progressive, arithmetic, lossless: not judged

// Walks through the Huffman codes of every block of a sequential JPEG picture (or of the two fields of one),
// without computing a pixel. Returns how many bytes of its scans no block uses (an intact picture has none,
// though some cameras always leave a few), `kJpegDamaged` when a block cannot be or the data ends before the
// picture, or `kJpegOther`.
std::ptrdiff_t jpeg_unused(const std::uint8_t* data, std::size_t size);

}  // namespace mmedge
