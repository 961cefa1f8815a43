#include "sound_records.hpp"

#include <nanobind/stl/string.h>

#include <cstring>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

nb::object copied(const SoundRun& run, const SoundRun::Block& block) {
  auto* const samples = new float[block.samples == 0 ? 1 : block.samples];
  const nb::capsule owner(samples, [](void* data) noexcept { delete[] static_cast<float*>(data); });
  if (block.samples > 0) std::memcpy(samples, run.samples(block), block.samples * sizeof(float));
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<1>>(samples, {block.samples}, owner));
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
}

}  // namespace mmedge::bindings
