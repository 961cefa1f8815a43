#include "sample_ring.hpp"

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

template <typename Array>
std::size_t samples(const Array& array, const char* name) {
  check<float>(array, name);
  if (array.ndim() != 1) throw std::invalid_argument(std::string(name) + " must have one dimension");
  return array.shape(0);
}

}  // namespace

// These calls last microseconds, so they keep the GIL: to get it back can take milliseconds.
void bind_sample_ring(nb::module_& m) {
  nb::class_<SampleRing>(
      m, "SampleRing",
      "The newest `capacity` mono float32 samples by absolute index, which starts at 0.\n\n"
      "One thread may write while another reads, also in another process; neither waits.")
      .def(nb::init<std::int64_t>(), nb::arg("capacity"))
      .def_static("shared", &SampleRing::shared, nb::arg("capacity"),
                  "A ring in memory that another process may attach to by its ``fd``.")
      .def_static("attach", &SampleRing::attach, nb::arg("fd"),
                  "Map the shared ring of another process; the caller keeps ``fd``.")
      .def(
          "write",
          [](SampleRing& self, const Input& array) {
            const std::size_t n = samples(array, "samples");
            return self.write(static_cast<const float*>(array.data()), n);
          },
          nb::arg("samples").noconvert(),
          nb::sig("def write(self, samples: numpy.typing.NDArray[numpy.float32]) -> int"),
          "Append samples and return the new end.")
      .def("write_silence", &SampleRing::write_silence, nb::arg("n"),
           "Append n samples of which nothing is known (a gap) and return the new end.")
      .def(
          "read",
          [](const SampleRing& self, std::int64_t end, const Output& array) {
            const std::size_t n = samples(array, "out");
            return self.read(end, static_cast<float*>(array.data()), n);
          },
          nb::arg("end"), nb::arg("out").noconvert(),
          nb::sig("def read(self, end: int, out: numpy.typing.NDArray[numpy.float32]) -> int"),
          "Copy samples [end - len(out), end) and return how many are real.\n\n"
          "What was overwritten, is not yet written or is silence reads as zero.")
      .def_prop_ro("begin", &SampleRing::begin, "Index of the oldest sample that is kept.")
      .def_prop_ro("end", &SampleRing::end, "Index after the newest sample.")
      .def_prop_ro("capacity", &SampleRing::capacity, "How many samples are kept.")
      .def_prop_ro("fd", &SampleRing::fd, "Descriptor of the shared memory; -1 if the ring is private.");
}

}  // namespace mmedge::bindings
