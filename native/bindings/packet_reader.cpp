// What another process has put into a queue of records and the rings beside it, as Python has it: one call.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "bindings/ring_slot.hpp"
#include "frame_record.hpp"
#include "record_queue.hpp"
#include "sound_records.hpp"

namespace mmedge::bindings {
namespace {

// What pictures of a camera have in common: `told` is Python's.
struct PictureKind {
  nb::object told, stream, quality, format, width, height, description;
  std::string name;  // of the stream
};

// A slot as a picture of one kind.
struct PictureView {
  nb::object told, array;
};

class PacketReader {
 public:
  PacketReader(nb::object decode, nb::object lay_out, nb::object frame, nb::object arrival)
      : decode_(std::move(decode)),
        lay_out_(std::move(lay_out)),
        frame_(std::move(frame)),
        arrival_(std::move(arrival)) {}

  void add_records(int fd) { queue_.emplace(RecordQueue::attach(fd)); }
  void add_samples(std::uint32_t number, std::string stream, int fd) {
    announced();
    sounds_.add(number, std::move(stream), SampleRing::attach(fd));
    newest_ring_ = number;
  }
  void add_slots(std::uint32_t number, int fd) {
    announced();
    rings_[number] = nb::cast(SlotRing::attach(fd));
    newest_ring_ = number;
  }

  // A camera that changed its size writes into another ring, and no more into the one before.
  nb::object slots(const std::string& stream, std::uint32_t number) {
    if (streams_.size() >= kStreams && streams_.find(stream) == streams_.end())
      throw std::invalid_argument("pictures of more streams than a pipeline has");
    const auto [known, first] = streams_.try_emplace(stream, number);
    if (!first && known->second != number) {
      rings_.erase(known->second);
      views_.clear();
      known->second = number;
    }
    const auto found = rings_.find(number);
    if (found == rings_.end()) throw std::out_of_range("no pictures lie in ring " + std::to_string(number));
    return found->second;
  }

  nb::list take(std::int64_t most);
  bool plain() const { return plain_; }
  std::int64_t newest_ring() const { return newest_ring_; }
  int fd() const { return queue_ ? queue_->fd() : -1; }
  std::size_t slot_rings() const { return rings_.size(); }
  Newest newest() const { return queue_ ? queue_->newest() : Newest{0, 0, 0}; }

 private:
  static constexpr std::size_t kKinds = 64;    // of the pictures of one writer, so many are remembered
  static constexpr std::size_t kStreams = 64;  // a pipeline has no more inputs
  static constexpr std::size_t kRings = 256;   // each takes a descriptor; those of a camera's former sizes go

  // A writer that announces rings without end must not take all descriptors of this process.
  void announced() const {
    if (rings_.size() + sounds_.size() >= kRings)
      throw std::invalid_argument("too many rings were announced");
  }

  // Whether the ring of a picture or of sound is still on its way.
  bool waits(std::string_view record) const {
    if (SoundRecord::is(record)) return SoundRecord::parse(record).ring > newest_ring_;
    return FrameRecord::is(record) && FrameRecord::parse(record).ring > newest_ring_;
  }

  const PictureKind& kind(std::string_view record) {
    const std::string_view common = FrameRecord::common(record);
    const auto known = kinds_.find(common);
    if (known != kinds_.end()) return known->second;
    nb::object told = decode_(nb::bytes(common.data(), common.size()));
    if (kinds_.size() >= kKinds) kinds_.clear();
    PictureKind made{told,
                     told.attr("stream"),
                     told.attr("quality"),
                     told.attr("format"),
                     told.attr("width"),
                     told.attr("height"),
                     told.attr("description"),
                     nb::cast<std::string>(told.attr("stream"))};
    return kinds_.emplace(std::string(common), std::move(made)).first->second;
  }

  // How many of the oldest pictures of each stream are not worth taking.
  void count_spare(std::int64_t most) {
    spare_.clear();
    const auto is_picture = [](const std::string& record) { return FrameRecord::is(record); };
    if (most == 0 || std::count_if(records_.begin(), records_.end(), is_picture) <= most) return;
    for (const std::string& record : records_) {
      if (!FrameRecord::is(record)) continue;
      FrameRecord::parse(record);
      const auto counted = spare_.try_emplace(kind(record).name, -most).first;
      ++counted->second;
    }
  }

  // Appends what the record at `at` says; returns how many records that are.
  std::size_t next(std::size_t at, nb::list* found) {
    const std::string& record = records_[at];
    if (FrameRecord::is(record)) {
      found->append(picture(record));
      return 1;
    }
    if (!SoundRecord::is(record)) {
      plain_ = false;
      found->append(nb::bytes(record.data(), record.size()));
      return 1;
    }
    // No further than a run can go: blocks of two streams in turn would be gathered again and again.
    SoundRecord before = SoundRecord::parse(record);
    sound_.clear();
    for (std::size_t i = at; i < records_.size() && SoundRecord::is(records_[i]); ++i) {
      const SoundRecord block = SoundRecord::parse(records_[i]);
      if (block.ring != before.ring || block.arrive_ns < before.arrive_ns) break;
      sound_.push_back(records_[i]);
      before = block;
    }
    std::optional<SoundRun> run = sounds_.read(sound_);
    if (!run)
      throw std::out_of_range("no sound lies in ring " + std::to_string(SoundRecord::parse(record).ring));
    const std::size_t done = run->blocks().size();
    found->append(nb::cast(std::move(*run)));
    return done;
  }

  nb::object picture(const std::string& raw) {
    const FrameRecord record = FrameRecord::parse(raw);
    const PictureKind& of = kind(raw);
    nb::object ring = slots(of.name, record.ring);
    SlotRing& its = nb::cast<SlotRing&>(ring);
    bool taken = its.claim(record.index, record.slot_seq);
    const auto spare = spare_.find(of.name);
    if (spare != spare_.end() && spare->second-- > 0 && taken) {
      its.release(record.index);
      taken = false;
    }
    if (!taken) {
      return arrival_(nb::arg("stream") = of.stream, nb::arg("seq") = record.seq,
                      nb::arg("capture_ns") = record.capture_ns, nb::arg("arrive_ns") = record.arrive_ns,
                      nb::arg("epoch") = record.epoch, nb::arg("uncertainty_ns") = record.uncertainty_ns,
                      nb::arg("quality") = of.quality);
    }
    PictureView& view = views_[{record.ring, record.index}];
    if (!view.told.is(of.told)) view = {of.told, lay_out_(of.told, ring.attr("data")(record.index))};
    return frame_(
        nb::arg("stream") = of.stream, nb::arg("seq") = record.seq, nb::arg("capture_ns") = record.capture_ns,
        nb::arg("arrive_ns") = record.arrive_ns, nb::arg("epoch") = record.epoch,
        nb::arg("uncertainty_ns") = record.uncertainty_ns, nb::arg("quality") = of.quality,
        nb::arg("data") = view.array, nb::arg("format") = of.format, nb::arg("width") = of.width,
        nb::arg("height") = of.height, nb::arg("description") = of.description,
        nb::arg("release") = nb::cast(RingSlot(std::move(ring), record.index, record.slot_seq, true, raw)),
        nb::arg("unchanged_ns") = record.unchanged_ns, nb::arg("damaged") = record.damaged != 0);
  }

  nb::object decode_, lay_out_, frame_, arrival_;
  std::optional<RecordQueue> queue_;
  SoundReader sounds_;
  std::map<std::uint32_t, nb::object> rings_;     // of slots
  std::map<std::string, std::uint32_t> streams_;  // stream -> the number of the ring that its pictures lie in
  std::map<std::pair<std::uint32_t, std::int64_t>, PictureView> views_;
  std::map<std::string, PictureKind, std::less<>> kinds_;
  std::map<std::string, std::int64_t> spare_;
  std::vector<std::string> records_;  // taken; the first of them may wait for its ring
  std::vector<std::string_view> sound_;
  std::int64_t newest_ring_ = -1;
  bool plain_ = true;
};

nb::list PacketReader::take(std::int64_t most) {
  nb::list found;
  plain_ = true;
  if (!queue_ || (!records_.empty() && waits(records_.front()))) return found;
  std::string record;
  // Of the capacity, so that a writer that never stops does not keep the reader here.
  for (std::int64_t left = queue_->capacity(); left > 0 && queue_->take(record);) {
    left -= static_cast<std::int64_t>(record.size()) + 4;
    records_.push_back(std::move(record));
  }
  if (records_.empty()) return found;
  count_spare(most);
  std::size_t done = 0;
  while (done < records_.size() && !waits(records_[done])) done += next(done, &found);
  records_.erase(records_.begin(), records_.begin() + static_cast<std::ptrdiff_t>(done));
  return found;
}

}  // namespace

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_packet_reader(nb::module_& m) {
  nb::class_<PacketReader>(m, "PacketReader", "Reads the packets that another process has put.")
      .def(nb::init<nb::object, nb::object, nb::object, nb::object>(), nb::kw_only(), nb::arg("decode"),
           nb::arg("lay_out"), nb::arg("frame"), nb::arg("arrival"),
           nb::sig("def __init__(self, *, decode: collections.abc.Callable[[bytes], object], "
                   "lay_out: collections.abc.Callable[[typing.Any, typing.Any], object], "
                   "frame: type, arrival: type) -> None"),
           "``decode`` makes a ``FrameKind`` of msgpack, and ``lay_out`` a picture of it and a slot.")
      .def("add_records", &PacketReader::add_records, nb::arg("fd"),
           "Map the queue; the caller keeps ``fd``, here and below.")
      .def("add_samples", &PacketReader::add_samples, nb::arg("number"), nb::arg("stream"), nb::arg("fd"),
           "Map the ring of samples that was announced under a number for a stream.")
      .def("add_slots", &PacketReader::add_slots, nb::arg("number"), nb::arg("fd"),
           "Map the ring of slots that was announced under a number.")
      .def("slots", &PacketReader::slots, nb::arg("stream"), nb::arg("number"),
           nb::sig("def slots(self, stream: str, number: int) -> SlotRing"),
           "Return the ring that a stream writes into from now on; raises IndexError if there is none.")
      .def("take", &PacketReader::take, nb::arg("most"),
           nb::sig("def take(self, most: int) -> list[typing.Any]"),
           "Take what is there, oldest first: frames, runs of sound, and other records as they are.\n\n"
           "Of a stream's pictures the newest ``most`` are taken (0: all); the others, and those that were\n"
           "overwritten, are arrivals. A packet whose ring is still on its way stays, with all that follow.\n"
           "Raises ValueError, IndexError, or what ``decode`` does, for what no writer leaves.")
      .def_prop_ro("plain", &PacketReader::plain, "Whether ``take`` last found pictures and sound alone.")
      .def_prop_ro("newest_ring", &PacketReader::newest_ring, "Number of the ring that was announced last.")
      .def_prop_ro("fd", &PacketReader::fd, "Descriptor of the queue, -1 without one.")
      .def_prop_ro("slot_rings", &PacketReader::slot_rings, "How many rings of slots are mapped.")
      .def_prop_ro(
          "newest",
          [](const PacketReader& self) {
            const Newest newest = self.newest();
            return nb::make_tuple(newest.arrive_ns, newest.capture_ns, newest.epoch);
          },
          nb::for_getter(nb::sig("def newest(self) -> tuple[int, int, int]")),
          "Arrival and capture time in ns, and epoch, of the newest record, taken or not; zeros before it.");
}

}  // namespace mmedge::bindings
