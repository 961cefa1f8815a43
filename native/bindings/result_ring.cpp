// A result on its way into another process: what was made, and where its pictures and its sound lie.
#include <nanobind/stl/string.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "bindings/attribute.hpp"
#include "bindings/messages.hpp"
#include "bindings/modules.hpp"
#include "bindings/pack_python.hpp"
#include "bindings/ring_slot.hpp"
#include "slot_ring.hpp"

namespace mmedge::bindings {
namespace {

class ResultRing {
 public:
  ResultRing(nb::object ring, int wake, bool steal, nb::object announce, nb::object refer)
      : kept_(std::move(ring)),
        ring_(nb::cast<SlotRing*>(kept_)),
        wake_(wake),
        steal_(steal),
        announce_(std::move(announce)),
        refer_(std::move(refer)) {}

  void hear(const std::string& name, nb::object ring, std::int64_t window, std::int64_t rate_hz) {
    sounds_[name] = {std::move(ring), window, rate_hz};
  }

  std::size_t pack(const nb::bytes& result, std::int64_t from_ns, nb::handle snapshot,
                   const nb::bytes& outputs, const nb::bytes& spans) {
    packer_.clear();
    packer_.array(5);
    packer_.packed(view_of(result));
    packer_.number(from_ns);
    packer_.array(2);
    pack_pictures(attribute<nb::dict>(snapshot, "frames"));
    pack_sounds(snapshot);
    packer_.packed(view_of(outputs));
    packer_.binary(view_of(spans));
    return packer_.text().size();
  }

  bool send() { return put_message(*ring_, wake_, packer_.text(), steal_); }

 private:
  struct Sound {
    nb::object ring;
    std::int64_t window, rate_hz;
  };
  struct Announced {
    PyObject* ring = nullptr;
    std::int64_t number = 0;
  };

  // The number of a ring that the reader has; 0 if it is stopped: it will not ask for what is there.
  std::int64_t number(nb::handle name, nb::handle ring, const char* kind) {
    Announced& known = announced_[nb::cast<std::string>(name)];
    if (known.ring != ring.ptr()) {
      const nb::object told = announce_(name, ring, kind);
      if (told.is_none()) return 0;
      known = {ring.ptr(), nb::cast<std::int64_t>(told)};
    }
    return known.number;
  }

  void pack_pictures(const nb::dict& frames) {
    packer_.map(frames.size());
    for (const auto [name, frame] : frames) {
      packer_.string(view_of(name));
      const nb::object release = frame.attr("release");
      RingSlot* slot = nullptr;
      if (nb::try_cast(release, slot) && slot != nullptr && !slot->record.empty()) {
        pack_picture(number(name, slot->ring, "slots"), slot->index, slot->seq, slot->record);
        continue;
      }
      const auto told = nb::cast<nb::tuple>(refer_(frame));
      pack_picture(number(name, told[0], "slots"), nb::cast<std::int64_t>(told[1]),
                   nb::cast<std::uint64_t>(told[2]), view_of(nb::cast<nb::bytes>(told[3])));
    }
  }
  void pack_picture(std::int64_t ring, std::int64_t index, std::uint64_t seq, std::string_view record) {
    if (ring == 0) {
      packer_.nil();
      return;
    }
    packer_.array(4);
    packer_.number(ring);
    packer_.number(index);
    packer_.number(static_cast<std::int64_t>(seq));
    packer_.binary(record);
  }

  void pack_sounds(nb::handle snapshot) {
    const auto ends = attribute<nb::dict>(snapshot, "audio_end");
    const auto ends_ns = attribute<nb::dict>(snapshot, "audio_end_ns");
    const auto epochs = attribute<nb::dict>(snapshot, "epoch");
    packer_.map(ends.size());
    for (const auto [name, end] : ends) {
      packer_.string(view_of(name));
      const Sound& sound = sounds_.at(nb::cast<std::string>(name));
      const std::int64_t ring = number(name, sound.ring, "samples");
      if (ring == 0) {
        packer_.nil();
        continue;
      }
      packer_.array(6);
      packer_.number(ring);
      packer_.number(nb::cast<std::int64_t>(end));
      packer_.number(nb::cast<std::int64_t>(ends_ns[name]));
      packer_.number(sound.window);
      packer_.number(sound.rate_hz);
      packer_.number(epochs.contains(name) ? nb::cast<std::int64_t>(epochs[name]) : 0);
    }
  }

  nb::object kept_;
  SlotRing* ring_;
  int wake_;
  bool steal_;
  nb::object announce_, refer_;
  std::map<std::string, Sound> sounds_;
  std::map<std::string, Announced> announced_;  // by stream; a ring that is told of is kept by Python
  Packer packer_;
};

}  // namespace

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_result_ring(nb::module_& m) {
  nb::class_<ResultRing>(m, "ResultRing", "Writes results into a ring that another process reads.")
      .def(nb::init<nb::object, int, bool, nb::object, nb::object>(), nb::arg("ring"), nb::arg("wake"),
           nb::kw_only(), nb::arg("steal"), nb::arg("announce"), nb::arg("refer"),
           nb::sig(
               "def __init__(self, ring: SlotRing, wake: int, *, steal: bool, "
               "announce: collections.abc.Callable[[str, typing.Any, str], int | None], "
               "refer: collections.abc.Callable[[typing.Any], tuple[typing.Any, int, int, bytes]]) -> None"),
           "``wake`` is the eventfd of the reader; with ``steal``, the oldest result that nobody has taken "
           "makes\n"
           "room. ``announce`` gives a stream's ring, of ``slots`` or ``samples``, to the reader, and "
           "returns its\n"
           "number, or None; ``refer`` says of a frame that came from no other process where it lies: ring, "
           "slot,\n"
           "what that holds, record.")
      .def("hear", &ResultRing::hear, nb::arg("name"), nb::arg("ring"), nb::arg("window"), nb::arg("rate_hz"),
           nb::sig("def hear(self, name: str, ring: SampleRing, window: int, rate_hz: int) -> None"),
           "Tell of the ring that holds the sound of an input.")
      .def("pack", &ResultRing::pack, nb::arg("result"), nb::arg("from_ns"), nb::arg("snapshot"),
           nb::arg("outputs"), nb::arg("spans"),
           nb::sig("def pack(self, result: bytes, from_ns: int, snapshot: object, outputs: bytes, "
                   "spans: bytes) -> int"),
           "Make a message of a result; return its size. ``result`` and ``outputs`` are MessagePack.")
      .def("send", &ResultRing::send,
           "Publish that message and wake the reader; False if no slot is free. Never blocks.\n\n"
           "Raises ValueError if it does not fit into a slot.");
}

}  // namespace mmedge::bindings
