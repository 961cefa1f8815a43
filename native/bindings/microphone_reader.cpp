#include "capture/microphone_reader.hpp"

#include "bindings/microphone_clock.hpp"
#include "bindings/mixer.hpp"
#include "bindings/modules.hpp"
#include "bindings/nanoseconds.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

namespace {

void make(MicrophoneReader* self, CallbackBlocks& blocks, SoundWriter& writer, std::int64_t rate_hz,
          Nanoseconds a, Nanoseconds b, Nanoseconds c, const nb::sequence& channels, std::int64_t epoch) {
  std::vector<std::vector<std::size_t>> chosen;
  for (const nb::handle each : channels) chosen.push_back(channel_list(nb::cast<nb::sequence>(each)));
  new (self) MicrophoneReader(blocks, writer, rate_hz, {a, b, c}, chosen, epoch);
}

nb::object run(MicrophoneReader& self, int silence_ms) {
  MicrophoneReader::Told block{};
  MicrophoneReader::Turn turn{};
  {
    const nb::gil_scoped_release unlocked;
    turn = self.run(silence_ms, block);
  }
  if (turn == MicrophoneReader::Turn::kClosed) return nb::none();
  if (turn == MicrophoneReader::Turn::kSilent) {
    PyErr_SetString(PyExc_TimeoutError, "no block came in time");
    throw nb::python_error();
  }
  nb::list mixes;
  for (const auto& [stream, weak] : block.mixes) mixes.append(nb::make_tuple(stream, told(weak)));
  return nb::make_tuple(told(block.clock), static_cast<int>(block.before), static_cast<int>(block.now),
                        mixes);
}

nb::tuple state(const MicrophoneReader& self) {
  const MicrophoneReader::State now = self.state();
  nb::list streams;
  for (const auto& stream : now.progress.streams)
    streams.append(nb::make_tuple(stream.seq, stream.capture_ns));
  const auto& [epoch, blocks, lost, jumps, arrive_ns, unused] = now.progress;
  return nb::make_tuple(epoch, blocks, lost, jumps, arrive_ns, streams, report(now.quality, now.clock));
}

}  // namespace

void bind_microphone_reader(nb::module_& m) {
  nb::class_<SoundWriter>(
      m, "SoundWriter",
      "Writes sound into rings and a queue that another process reads, without Python.\n\n"
      "Rings and queue have one writer at a time: who made them writes nothing meanwhile.")
      .def(nb::init<RecordQueue&, int>(), nb::arg("records"), nb::arg("wake_fd"), nb::keep_alive<1, 2>(),
           "Into this queue, setting this eventfd; the caller keeps it.")
      .def(
          "add", [](SoundWriter& self, SampleRing& ring, std::uint32_t number) { self.add(ring, number); },
          nb::arg("ring"), nb::arg("number"), nb::keep_alive<1, 2>(),
          "Add a stream, whose ring was announced under this number.")
      .def(
          "dropped",
          [](const SoundWriter& self, std::size_t stream) {
            if (stream >= self.streams()) throw nb::index_error();
            return self.dropped(stream);
          },
          nb::arg("stream"), "Return how many blocks of a stream found no room.");
  nb::class_<MicrophoneReader>(
      m, "MicrophoneReader",
      "Takes a microphone's blocks as they come and writes each input's mono at the rate of the device.")
      .def("__init__", &make, nb::arg("blocks"), nb::arg("writer"), nb::arg("rate_hz"), nb::arg("a_ns"),
           nb::arg("b_ns"), nb::arg("c_ns"), nb::arg("channels"), nb::arg("epoch"), nb::keep_alive<1, 2>(),
           nb::keep_alive<1, 3>(),
           nb::sig("def __init__(self, blocks: CallbackBlocks, writer: SoundWriter, rate_hz: int, a_ns: int, "
                   "b_ns: "
                   "int, c_ns: int, channels: collections.abc.Sequence[collections.abc.Sequence[int]], "
                   "epoch: int) "
                   "-> None"),
           "With what ``MicrophoneClock`` and, for each stream of the writer, ``Mixer`` take; beginning with "
           "this "
           "epoch.")
      .def("run", &run, nb::arg("silence_ms"),
           nb::sig("def run(self, silence_ms: int) -> tuple[tuple[int, bool, int], int, int, list[tuple[int, "
                   "tuple[bool, int, float, int]]]] | None"),
           "Read without the GIL until a block says something that the user should hear of; None once the "
           "blocks\n"
           "are closed.\n\n"
           "Returns:\n"
           "    What the clock told, see ``MicrophoneClock.observe``; its class before and now; streams "
           "whose mix\n"
           "    is weak, and what their ``Mixer`` told.\n\n"
           "Raises:\n"
           "    TimeoutError: If no block came for that long.")
      .def_prop_ro(
          "state", &state,
          nb::for_getter(nb::sig("def state(self) -> tuple[int, int, int, int, int, list[tuple[int, int]], "
                                 "tuple[int, int, float, int, int]]")),
          "Epoch; blocks; lost samples; how often the clock has jumped; when the newest block arrived, in\n"
          "ns, 0 before the first; of each stream the number of the next block and the capture time of the\n"
          "newest in ns; the clock's report.");
}

}  // namespace mmedge::bindings
