#include "jpeg_scan.hpp"

#include <array>
#include <cstdlib>
#include <memory>

namespace mmedge {
namespace {

struct Damaged {};
struct Other {};

// ITU-T T.81, tables K.3 to K.6: many cameras leave them out.
struct Standard {
  std::uint8_t counts[16];
  const char* values;
};
const Standard kStandard[2][2] = {
    {{{0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0}, "000102030405060708090a0b"},
     {{0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0}, "000102030405060708090a0b"}},
    {{{0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
      "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a34"
      "35363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a9293949596"
      "9798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1"
      "f2f3f4f5f6f7f8f9fa"},
     {{0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119},
      "0001020311040521310612415107617113223281081442"
      "91a1b1c109233352f0156272d10a162434e125f11718191a262728292a35363738393a434445464748494a535455565758595a"
      "636465666768696a737475767778797a82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9"
      "bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"}}};

// A Huffman table: of the next 16 bits, how long the code is and what it stands for (length 0: no code).
struct Table {
  std::array<std::uint16_t, 256> fast{};                // by the first 8 bits
  std::array<std::uint32_t, 17> first{}, last{}, at{};  // of each length: codes and where their values begin
  std::array<std::uint8_t, 256> values{};

  void build(const std::uint8_t* counts, const std::uint8_t* symbols, std::size_t n) {
    fast.fill(0);
    std::uint32_t code = 0, done = 0;
    for (std::uint32_t length = 1; length <= 16; ++length) {
      first[length] = code, at[length] = done;
      for (std::uint32_t i = 0; i < counts[length - 1]; ++i, ++code, ++done) {
        if (code >= 1u << length || done >= n) throw Damaged{};
        values[done] = symbols[done];
        for (std::uint32_t tail = 0; length <= 8 && tail < 1u << (8 - length); ++tail)
          fast[(code << (8 - length)) | tail] = static_cast<std::uint16_t>(length << 8 | symbols[done]);
      }
      last[length] = code;  // one past the last
      code <<= 1;
    }
  }
};

// The bits of one scan, up to the next marker.
class Bits {
 public:
  Bits(const std::uint8_t* at, const std::uint8_t* end) : at_(at), end_(end) {}

  std::uint32_t decode(const Table& table) {
    fill();
    const auto ahead = static_cast<std::uint32_t>(window_ >> 48);
    if (const std::uint16_t hit = table.fast[ahead >> 8]) return take(hit >> 8), hit & 0xffu;
    for (std::uint32_t length = 9; length <= 16; ++length) {
      const std::uint32_t code = ahead >> (16 - length);
      if (code < table.last[length] && code >= table.first[length]) {
        take(length);
        return table.values[table.at[length] + code - table.first[length]];
      }
    }
    throw Damaged{};
  }
  // The `n` bits of a coefficient, as T.81 F.2.2.1 extends them.
  int value(std::uint32_t n) {
    if (n == 0) return 0;
    fill();
    const auto raw = static_cast<int>(window_ >> (64 - n));
    take(n);
    return raw >> (n - 1) ? raw : raw - (1 << n) + 1;
  }
  // Ends the scan or the interval: returns the marker's place and adds the whole bytes that are left.
  const std::uint8_t* finish(std::ptrdiff_t& left) {
    left += count_ / 8;
    while (at_ < end_ && !marker()) at_ += *at_ == 0xff ? 2 : 1, ++left;
    return at_;
  }

 private:
  // 0xff 0x00 is a byte of data; any other follower of 0xff, or the end of the data, ends the scan.
  bool marker() const { return *at_ == 0xff && (at_ + 1 == end_ || at_[1] != 0); }
  void fill() {
    while (count_ <= 56 && at_ < end_ && !marker()) {
      window_ |= static_cast<std::uint64_t>(*at_) << (56 - count_);
      count_ += 8;
      at_ += *at_ == 0xff ? 2 : 1;
    }
  }
  void take(std::uint32_t n) {
    if (static_cast<int>(n) > count_) throw Damaged{};
    window_ <<= n;
    count_ -= static_cast<int>(n);
  }

  const std::uint8_t *at_, *end_;
  std::uint64_t window_ = 0;
  int count_ = 0;
};

struct Component {
  unsigned id = 0, across = 1, down = 1, quant = 0, dc = 0, ac = 0;
  int before = 0;
};

class Picture {
 public:
  Picture(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {
    for (unsigned kind = 0; kind < 2; ++kind)
      for (unsigned id = 0; id < 2; ++id) standard(kind, id);
  }

  std::ptrdiff_t check() {
    while (next_picture()) {
      unsigned marker = 0;
      while (at_ < end_ && (marker = next_marker()) != 0xd9) segment(marker);
      if (scanned_ == 0 || scanned_ < components_) throw Damaged{};
    }
    if (scanned_ == 0) throw Damaged{};
    return left_;
  }

 private:
  void standard(unsigned kind, unsigned id) {
    const Standard& from = kStandard[kind][id];
    std::array<std::uint8_t, 256> symbols{};
    std::size_t n = 0;
    for (const char* c = from.values; *c; c += 2) {
      const char pair[] = {c[0], c[1], 0};
      symbols[n++] = static_cast<std::uint8_t>(std::strtoul(pair, nullptr, 16));
    }
    tables_[kind][id].build(from.counts, symbols.data(), n);
  }

  bool next_picture() {
    for (; at_ + 1 < end_; ++at_)
      if (at_[0] == 0xff && at_[1] == 0xd8) {
        at_ += 2;
        components_ = scanned_ = interval_ = 0;
        return true;
      }
    return false;
  }

  unsigned next_marker() {
    while (at_ < end_ && *at_ != 0xff) ++at_;
    while (at_ < end_ && *at_ == 0xff) ++at_;
    return at_ < end_ ? *at_++ : 0xd9u;  // some cameras leave out the end marker
  }

  void segment(unsigned marker) {
    if (marker == 0 || marker == 1 || (marker >= 0xd0 && marker <= 0xd8)) return;
    if (end_ - at_ < 2) throw Damaged{};
    const std::size_t length = static_cast<std::size_t>(at_[0] << 8 | at_[1]);
    if (length < 2 || static_cast<std::size_t>(end_ - at_) < length) throw Damaged{};
    const std::uint8_t *body = at_ + 2, *stop = at_ += length;
    if (marker == 0xc4) {
      huffman(body, stop);
    } else if (marker == 0xdb) {
      quantisers(body, stop);
    } else if (marker == 0xc0 || marker == 0xc1) {
      frame(body, stop);
    } else if (marker >= 0xc2 && marker <= 0xcf && marker != 0xc8) {
      throw Other{};
    } else if (marker == 0xdd) {
      if (stop - body < 2) throw Damaged{};
      interval_ = static_cast<unsigned>(body[0] << 8 | body[1]);
    } else if (marker == 0xda) {
      scan(body, stop);
    }
  }

  void huffman(const std::uint8_t* body, const std::uint8_t* stop) {
    while (body < stop) {
      if (stop - body < 17 || (*body >> 4) > 1 || (*body & 15) > 3) throw Damaged{};
      Table& table = tables_[*body >> 4][*body & 15];
      std::size_t n = 0;
      for (int i = 1; i <= 16; ++i) n += body[i];
      if (n > 256 || static_cast<std::size_t>(stop - body - 17) < n) throw Damaged{};
      table.build(body + 1, body + 17, n);
      body += 17 + n;
    }
  }

  void quantisers(const std::uint8_t* body, const std::uint8_t* stop) {
    while (body < stop) {
      const std::ptrdiff_t bytes = *body >> 4 ? 128 : 64;
      if (stop - body < 1 + bytes) throw Damaged{};
      quant_[*body & 3] = *body >> 4 ? body[1] << 8 | body[2] : body[1];
      body += 1 + bytes;
    }
  }

  void frame(const std::uint8_t* body, const std::uint8_t* stop) {
    if (stop - body < 6 || stop - body < 6 + 3 * body[5]) throw Damaged{};
    if (body[0] != 8) throw Other{};
    height_ = static_cast<unsigned>(body[1] << 8 | body[2]),
    width_ = static_cast<unsigned>(body[3] << 8 | body[4]);
    components_ = body[5];
    if (components_ == 0 || components_ > 4 || width_ == 0) throw Damaged{};
    if (height_ == 0) throw Other{};  // said after the scan
    across_ = down_ = 1;
    for (unsigned i = 0; i < components_; ++i) {
      const std::uint8_t* from = body + 6 + 3 * i;
      parts_[i] =
          Component{from[0], static_cast<unsigned>(from[1] >> 4), from[1] & 15u, from[2] & 3u, 0, 0, 0};
      if (parts_[i].across - 1 > 3 || parts_[i].down - 1 > 3) throw Damaged{};
      across_ = parts_[i].across > across_ ? parts_[i].across : across_;
      down_ = parts_[i].down > down_ ? parts_[i].down : down_;
    }
  }

  void scan(const std::uint8_t* body, const std::uint8_t* stop) {
    if (body >= stop || stop - body < 1 + 2 * body[0] || body[0] == 0 || body[0] > components_)
      throw Damaged{};
    std::array<Component*, 4> used{};
    const unsigned n = body[0];
    for (unsigned i = 0; i < n; ++i) {
      for (unsigned k = 0; k < components_; ++k)
        if (parts_[k].id == body[1 + 2 * i]) used[i] = &parts_[k];
      const std::uint8_t which = body[2 + 2 * i];
      if (used[i] == nullptr || (which >> 4) > 3 || (which & 15) > 3) throw Damaged{};
      used[i]->dc = which >> 4, used[i]->ac = which & 15u;
    }
    const auto ceil = [](unsigned a, unsigned b) { return (a + b - 1) / b; };
    unsigned columns = ceil(width_, 8 * across_), rows = ceil(height_, 8 * down_);
    if (n == 1) {  // its own blocks alone, without those that only fill up
      columns = ceil(ceil(width_ * used[0]->across, across_), 8);
      rows = ceil(ceil(height_ * used[0]->down, down_), 8);
    }
    const std::uint64_t units = static_cast<std::uint64_t>(columns) * rows;
    unsigned restarts = 0;
    for (std::uint64_t done = 0; done < units;) {
      const std::uint64_t until = interval_ ? (done + interval_ < units ? done + interval_ : units) : units;
      Bits bits(at_, end_);
      for (unsigned i = 0; i < n; ++i) used[i]->before = 0;
      for (; done < until; ++done)
        for (unsigned i = 0; i < n; ++i)
          for (unsigned k = n == 1 ? 1 : used[i]->across * used[i]->down; k > 0; --k) block(bits, *used[i]);
      at_ = bits.finish(left_);
      if (done < units && next_marker() != 0xd0 + restarts++ % 8) throw Damaged{};
    }
    scanned_ += n;
  }

  void block(Bits& bits, Component& part) {
    const std::uint32_t size = bits.decode(tables_[0][part.dc]);
    if (size > 11) throw Damaged{};
    part.before += bits.value(size);
    // Eight times the block's mean, from -1024: no picture goes beyond.
    const int step = quant_[part.quant];
    if (std::abs(part.before) * step > 1040 + step) throw Damaged{};
    const Table& table = tables_[1][part.ac];
    for (unsigned k = 1; k < 64;) {
      const std::uint32_t code = bits.decode(table), run = code >> 4, bit_count = code & 15;
      if (bit_count == 0 && run != 15) {
        if (run != 0) throw Damaged{};
        break;
      }
      k += run + 1;
      if (k > 64 || bit_count > 10) throw Damaged{};
      bits.value(bit_count);
    }
  }

  const std::uint8_t *at_, *end_;
  Table tables_[2][4];
  int quant_[4] = {1, 1, 1, 1};
  Component parts_[4];
  unsigned components_ = 0, width_ = 0, height_ = 0, across_ = 1, down_ = 1, interval_ = 0, scanned_ = 0;
  std::ptrdiff_t left_ = 0;
};

}  // namespace

std::ptrdiff_t jpeg_unused(const std::uint8_t* data, std::size_t size) {
  try {
    return std::make_unique<Picture>(data, size)->check();
  } catch (const Damaged&) {
    return kJpegDamaged;
  } catch (const Other&) {
    return kJpegOther;
  }
}

}  // namespace mmedge
