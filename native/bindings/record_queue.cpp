#include "record_queue.hpp"

#include "bindings/modules.hpp"

namespace mmedge::bindings {

namespace nb = nanobind;

// Calls of microseconds keep the GIL: to get it back can take milliseconds.
void bind_record_queue(nb::module_& m) {
  nb::class_<RecordQueue>(
      m, "RecordQueue",
      "Records of bytes in memory shared with another process: one writer, one reader, neither waits.")
      .def(nb::init<std::int64_t>(), nb::arg("capacity"))
      .def_static("attach", &RecordQueue::attach, nb::arg("fd"),
                  "Map the queue of another process to take from it; the caller keeps ``fd``.")
      .def(
          "put",
          [](RecordQueue& self, const nb::bytes& record, std::int64_t arrive_ns, std::int64_t capture_ns,
             std::int64_t epoch) {
            return self.put(record.c_str(), record.size(), {arrive_ns, capture_ns, epoch});
          },
          nb::arg("record"), nb::arg("arrive_ns"), nb::arg("capture_ns"), nb::arg("epoch"),
          "Append a record, and say what it is about; False when there is no room for it.")
      .def_prop_ro("capacity", &RecordQueue::capacity, "How many bytes it holds, with four for each record.")
      .def_prop_ro("fd", &RecordQueue::fd,
                   "Descriptor of the shared memory, for ``attach`` in another process.");
}

}  // namespace mmedge::bindings
