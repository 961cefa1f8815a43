#include "statistics/histogram.hpp"

#include <nanobind/stl/vector.h>

#include <limits>
#include <memory>
#include <string>
#include <string_view>

#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"

namespace mmedge::bindings {
namespace {

// What does not fit into 64 bits is as long as can be told.
std::int64_t to_ns(nb::handle value) {
  const nb::object whole = nb::steal(PyNumber_Index(value.ptr()));
  if (!whole.is_valid()) nb::raise_python_error();
  int overflow = 0;
  const long long ns = PyLong_AsLongLongAndOverflow(whole.ptr(), &overflow);
  using Limits = std::numeric_limits<std::int64_t>;
  return overflow > 0 ? Limits::max() : overflow < 0 ? Limits::min() : ns;
}

nb::ndarray<nb::numpy, std::int64_t, nb::ndim<1>> counts(const Histogram& self) {
  auto copy = std::make_unique<std::int64_t[]>(Histogram::kBuckets);
  self.copy(copy.get());
  const nb::capsule owner(copy.get(), [](void* data) noexcept { delete[] static_cast<std::int64_t*>(data); });
  return {copy.release(), {Histogram::kBuckets}, owner};
}

void replace(Histogram& self, const std::vector<std::size_t>& buckets,
             const std::vector<std::int64_t>& counts, nb::handle sum_ns, nb::handle max_ns) {
  if (buckets.size() != counts.size()) throw std::invalid_argument("every bucket needs one count");
  Histogram::Counts all{};
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    if (buckets[i] >= Histogram::kBuckets) throw std::invalid_argument("there is no such bucket");
    all[buckets[i]] = counts[i];
  }
  self.load(all, to_ns(sum_ns), to_ns(max_ns));
}

nb::bytes pack(const Histogram& self) {
  const std::string packed = self.pack();
  return nb::bytes(packed.data(), packed.size());
}

void unpack(Histogram& self, nb::bytes packed, nb::handle sum_ns, nb::handle max_ns) {
  const std::string_view pairs(packed.c_str(), packed.size());
  if (!self.unpack(pairs, to_ns(sum_ns), to_ns(max_ns))) throw std::invalid_argument("not of a histogram");
}

}  // namespace

// These calls last microseconds, so they keep the GIL: to get it back can take milliseconds.
void bind_histogram(nb::module_& m) {
  nb::class_<Histogram>(m, "Histogram", "Durations in buckets 1 % wide; one thread adds while others read.")
      .def(nb::init<>())
      .def(
          "add", [](Histogram& self, nb::handle duration_ns) { self.add(to_ns(duration_ns)); },
          nb::arg("duration_ns"), nb::sig("def add(self, duration_ns: int) -> None"),
          "Count one duration; below 1 us it counts as 1 us.")
      .def("counts", &counts, nb::sig("def counts(self) -> numpy.typing.NDArray[numpy.int64]"),
           "Return how many durations each bucket holds, int64 [2400]; a copy.")
      .def("replace", &replace, nb::arg("buckets"), nb::arg("counts"), nb::arg("sum_ns"), nb::arg("max_ns"),
           nb::sig("def replace(self, buckets: Sequence[int], counts: Sequence[int], sum_ns: int, max_ns: "
                   "int) -> None"),
           "Hold these counts in these buckets, and nothing else.")
      .def("pack", &pack, "Return what the buckets hold, for another process of this machine.")
      .def("unpack", &unpack, nb::arg("packed"), nb::arg("sum_ns"), nb::arg("max_ns"),
           nb::sig("def unpack(self, packed: bytes, sum_ns: int, max_ns: int) -> None"),
           "Hold what another one has packed, and nothing else.")
      .def_prop_ro("n", &Histogram::n, "How many durations were counted.")
      .def_prop_ro("sum_ns", &Histogram::sum_ns, "All durations together.")
      .def_prop_ro("max_ns", &Histogram::max_ns, "The longest one.");
}

}  // namespace mmedge::bindings
