// What goes over the socket of a pipeline that can be attached to, and what lies in its rings; docs/attach.md
// draws it.
#pragma once

#include <cstddef>
#include <cstdint>

// Both sides are on one machine: everything is in its byte order, aligned as its compiler aligns it, and each
// struct has a size that a test fixes. The socket is SOCK_SEQPACKET: one message is one struct, with
// descriptors beside it.
namespace mmedge::attach {

constexpr std::uint32_t kMagic = 0x61656d6d;  // "mmea"
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kName = 64;    // bytes of a name, its NUL included
constexpr std::size_t kLabel = 128;  // bytes of a label, its NUL included; longer ones are cut
constexpr std::size_t kText = 512;   // bytes of an explanation, its NUL included
constexpr std::size_t kMaxPush = std::size_t{1} << 28;

enum class Kind : std::uint32_t {
  kHello = 1,    // client: the first message
  kOpen = 2,     // client: wants to push up to `bytes` at a time into input `name`
  kWelcome = 3,  // server: with the ring of results, and the eventfd that is set when one was published
  kRing = 4,     // server: pictures of input `name` lie in ring `number` from now on; with the ring
  kOpened = 5,   // server: push into ring `number`; with the ring, and the eventfd to set after each publish
  kRefused =
      6,  // server: why the pipeline did not take what was pushed, or asked for by kOpen (then number is 0)
  kEnded = 7,  // server: the last message: the run has ended; `text` is empty where it ended as it should
};

// Every message, in both directions.
struct Message {
  std::uint32_t magic = kMagic;
  std::uint32_t version = kVersion;
  Kind kind = Kind::kHello;
  std::uint32_t number = 0;
  std::uint64_t bytes = 0;
  char name[kName] = {};
  char text[kText] = {};
};
static_assert(sizeof(Message) == 600);

// A result, in a slot of the ring of results (whose own header is the size of all of it, 4 bytes): this, then
// `tasks` of Task, then `frames` of Picture, then the line of JSON with a NUL after it. Offsets count from
// its first byte.
struct Record {
  std::uint32_t version;
  std::uint32_t size;
  std::int64_t t_ns;
  std::int64_t unix_ns;
  std::uint32_t ok;
  std::uint32_t tasks;
  std::uint32_t frames;
  std::uint32_t json_at;
  std::uint64_t json_size;  // without its NUL
};
static_assert(sizeof(Record) == 48);

struct Task {
  char name[kName];
  char label[kLabel];
  std::uint32_t has_label;
  std::uint32_t reserved;
  double score;  // NaN: none
  double value;  // NaN: none
};
static_assert(sizeof(Task) == 216);

struct Picture {
  char input[kName];
  char format[16];
  char matrix[16];
  std::uint32_t ring;  // 0: it lies nowhere that another process sees
  std::int32_t slot;
  std::uint64_t seq;
  std::uint64_t bytes;
  std::int64_t capture_ns;
  std::int64_t uncertainty_ns;
  std::uint32_t width;
  std::uint32_t height;
  std::uint32_t rotation;
  std::uint32_t mirrored;
  std::uint32_t full_range;
  std::uint32_t pixel_width;  // of one stored pixel: 1 and 1 where they are square
  std::uint32_t pixel_height;
  std::uint32_t reserved;
};
static_assert(sizeof(Picture) == 168);

// What is pushed: this as the header of a slot of the ring that kOpened brought, the values as its data.
struct Pushed {
  std::int64_t capture_ns;
  std::uint32_t dtype;  // mmedge_dtype; 0: text
  std::uint32_t ndim;
  std::uint64_t bytes;
  std::uint64_t shape[8];
};
static_assert(sizeof(Pushed) == 88);

}  // namespace mmedge::attach
