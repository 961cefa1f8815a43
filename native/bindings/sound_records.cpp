#include "sound_records.hpp"

#include <nanobind/stl/string.h>

#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "record_queue.hpp"

namespace mmedge::bindings {
namespace {

std::string_view bytes_of(nb::handle object) {
  if (!PyBytes_Check(object.ptr())) throw nb::type_error("records are bytes");
  char* data = nullptr;
  Py_ssize_t size = 0;
  PyBytes_AsStringAndSize(object.ptr(), &data, &size);
  return {data, static_cast<std::size_t>(size)};
}

nb::object copied(const SoundRun& run, const SoundRun::Block& block) {
  auto* const samples = new float[block.samples == 0 ? 1 : block.samples];
  const nb::capsule owner(samples, [](void* data) noexcept { delete[] static_cast<float*>(data); });
  if (block.samples > 0) std::memcpy(samples, run.samples(block), block.samples * sizeof(float));
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<1>>(samples, {block.samples}, owner));
}

// Takes all records of a queue: blocks of sound that follow each other as runs, the others as they are, and
// so those whose ring is not there.
nb::list take(SoundReader& self, RecordQueue& queue) {
  nb::list found;
  std::vector<std::string> blocks;
  const auto read_blocks = [&] {
    std::vector<std::string_view> left(blocks.begin(), blocks.end());
    while (!left.empty()) {
      std::optional<SoundRun> run = self.read(left);
      std::size_t done = 1;
      if (run) {
        done = run->blocks().size();
        found.append(nb::cast(std::move(*run)));
      } else {
        found.append(nb::bytes(left.front().data(), left.front().size()));
      }
      left.erase(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(done));
    }
    blocks.clear();
  };
  std::string record;
  // Of the capacity, so that a writer that never stops does not keep the reader here.
  for (std::int64_t left = queue.capacity(); left > 0 && queue.take(record);) {
    left -= static_cast<std::int64_t>(record.size()) + 4;
    if (SoundRecord::is(record)) {
      blocks.push_back(std::move(record));
      continue;
    }
    read_blocks();
    found.append(nb::bytes(record.data(), record.size()));
  }
  read_blocks();
  return found;
}

}  // namespace

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_sound_records(nb::module_& m) {
  nb::class_<SoundRun>(m, "SoundRun",
                       "Blocks of one stream, one after the other, with copies of their samples.")
      .def_prop_ro(
          "stream", [](const SoundRun& self) { return self.stream(); }, "Name of the input it feeds.")
      .def("__len__", [](const SoundRun& self) { return self.blocks().size(); })
      .def_prop_ro(
          "arrive_ns", [](const SoundRun& self) { return self.blocks().at(0).record.arrive_ns; },
          "When the first of them arrived, in ns.")
      .def_prop_ro(
          "newest",
          [](const SoundRun& self) {
            const SoundRecord& last = self.blocks().at(self.blocks().size() - 1).record;
            return nb::make_tuple(last.arrive_ns, last.capture_ns);
          },
          nb::for_getter(nb::sig("def newest(self) -> tuple[int, int]")),
          "Arrival and capture time of the last of them, in ns.")
      .def("split", &SoundRun::split, nb::arg("arrive_ns"),
           "Keep the blocks that arrived before ``arrive_ns``, and return the others; either may be empty.")
      .def(
          "blocks",
          [](const SoundRun& self) {
            nb::list blocks;
            for (const SoundRun::Block& block : self.blocks()) {
              const SoundRecord& said = block.record;
              blocks.append(nb::make_tuple(said.seq, said.capture_ns, said.arrive_ns, said.epoch,
                                           said.uncertainty_ns, said.quality, block.lost,
                                           copied(self, block)));
            }
            return blocks;
          },
          nb::sig("def blocks(self) -> list[tuple[int, int, int, int, int, int, int, "
                  "numpy.typing.NDArray[numpy.float32]]]"),
          "Return seq, capture and arrival in ns, epoch, uncertainty in ns, quality, samples that are "
          "missing "
          "before it,\n"
          "and a copy of its samples, float32 [n], of each.");
  nb::class_<SoundReader>(m, "SoundReader", "Reads blocks of sound that another process has put.")
      .def(nb::init<>())
      .def(
          "add",
          [](SoundReader& self, std::uint32_t number, std::string stream, int fd) {
            self.add(number, std::move(stream), SampleRing::attach(fd));
          },
          nb::arg("number"), nb::arg("stream"), nb::arg("fd"),
          "Map the ring that was announced under a number for a stream; the caller keeps ``fd``.")
      .def(
          "read",
          [](SoundReader& self, const nb::list& records, std::size_t first) -> nb::object {
            std::vector<std::string_view> found;
            for (std::size_t i = first; i < records.size(); ++i) {
              found.push_back(bytes_of(records[i]));
              if (!SoundRecord::is(found.back())) break;
            }
            std::optional<SoundRun> run = self.read(found);
            return run ? nb::cast(std::move(*run)) : nb::none();
          },
          nb::arg("records"), nb::arg("first"),
          nb::sig("def read(self, records: list[bytes], first: int) -> SoundRun | None"),
          "Make a run of the records from ``first`` on, as long as they are blocks of one stream in order of "
          "arrival.\n\n"
          "None when the ring of the first one is not there. Raises ValueError for a record that cannot be.")
      .def("take", &take, nb::arg("queue"),
           nb::sig("def take(self, queue: RecordQueue) -> list[bytes | SoundRun]"),
           "Take the records that are there, oldest first, and make runs of those that are sound.\n\n"
           "A block whose ring is not there stays a record. Raises ValueError as ``read`` does.");
}

}  // namespace mmedge::bindings
