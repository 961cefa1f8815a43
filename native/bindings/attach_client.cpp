#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "attach/client.hpp"
#include "bindings/arrays.hpp"
#include "bindings/modules.hpp"
#include "bindings/nanoseconds.hpp"

namespace mmedge::bindings {
namespace {

using attach::AttachClient;
using attach::Picture;

// A signal's handler runs as late as that, and another thread's `close` is noticed.
constexpr std::int64_t kSliceMs = 100;

[[noreturn]] void raise(PyObject* type, const std::string& words) {
  PyErr_SetString(type, words.c_str());
  throw nb::python_error();
}

// A client that several threads may use: nobody waits for results, or for the GIL, while it holds the lock.
class SharedClient {
 public:
  struct Next {
    mmedge_status status;
    std::string text;  // the JSON, or why there is none
    std::vector<Picture> pictures;
  };
  struct Said {
    mmedge_status status;
    std::string text;
  };

  explicit SharedClient(const std::string& path) : client_(std::make_unique<AttachClient>(path)) {}

  // Waits so many milliseconds at most, without the lock.
  Next next(int timeout_ms) {
    Next found = look();
    if (found.status != MMEDGE_TIMEOUT || timeout_ms <= 0) return found;
    pollfd ready{fd(), POLLIN, 0};
    poll(&ready, 1, timeout_ms);
    return look();
  }

  template <typename Call>
  Said say(Call call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const mmedge_status status = call(open());
    return {status, status == MMEDGE_OK ? "" : client_->error()};
  }

  int fd() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return open().fd();
  }

  std::uint64_t dropped() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return open().dropped();
  }

  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    client_.reset();
  }

 private:
  Next look() {
    const std::lock_guard<std::mutex> lock(mutex_);
    attach::Result* result = nullptr;
    const mmedge_status status = open().next(0, &result);
    if (status != MMEDGE_OK) return {status, client_->error(), {}};
    const auto release = [this](attach::Result* lent) { client_->release(lent); };
    const std::unique_ptr<attach::Result, decltype(release)> held(result, release);
    Next next{status, std::string(result->record.json()), {}};
    for (std::size_t i = 0; i < result->record.head().frames; ++i) {
      next.pictures.push_back(*result->record.picture(i));
      attach::check_size(next.pictures.back());
    }
    return next;
  }

  AttachClient& open() {
    if (!client_) throw std::invalid_argument("the client is closed");
    return *client_;
  }

  std::mutex mutex_;
  std::unique_ptr<AttachClient> client_;
};

nb::tuple tuple_of(const Picture& picture) {
  const auto text = [](const char* bytes) {
    PyObject* const string =
        PyUnicode_DecodeUTF8(bytes, static_cast<Py_ssize_t>(std::strlen(bytes)), "replace");
    if (string == nullptr) throw nb::python_error();
    return nb::steal<nb::str>(string);
  };
  return nb::make_tuple(text(picture.input), picture.ring, picture.slot, picture.seq, picture.bytes,
                        text(picture.format), text(picture.matrix), picture.width, picture.height,
                        picture.capture_ns, picture.uncertainty_ns, picture.rotation, picture.mirrored != 0,
                        picture.full_range != 0, nb::make_tuple(picture.pixel_width, picture.pixel_height));
}

nb::tuple tuple_of(const SharedClient::Next& next) {
  nb::list pictures;
  for (const Picture& picture : next.pictures) pictures.append(tuple_of(picture));
  return nb::make_tuple(nb::bytes(next.text.data(), next.text.size()), pictures);
}

[[noreturn]] void raise(mmedge_status status, const std::string& words) {
  if (status == MMEDGE_INVALID) throw std::invalid_argument(words);
  raise(status == MMEDGE_ENDED ? PyExc_EOFError : PyExc_OSError, words);
}

nb::object next(SharedClient& self, std::int64_t timeout_ms) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (std::int64_t waited = 0;;) {
    const SharedClient::Next next = [&] {
      const nb::gil_scoped_release unlocked;
      const std::int64_t left = timeout_ms < 0 ? kSliceMs : timeout_ms - waited;
      return self.next(static_cast<int>(std::min(left, kSliceMs)));
    }();
    if (next.status == MMEDGE_OK) return tuple_of(next);
    if (next.status != MMEDGE_TIMEOUT) raise(next.status, next.text);
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    waited = std::chrono::floor<std::chrono::milliseconds>(Clock::now() - start).count();
    if (timeout_ms >= 0 && waited >= timeout_ms) return nb::none();
  }
}

bool copy(SharedClient& self, std::uint32_t ring, std::int32_t slot, std::uint64_t seq, const Output& out) {
  check<std::uint8_t>(out, "out");
  mmedge_frame frame{};
  frame.bytes = out.size();
  frame.seq = seq;
  frame.ring = static_cast<std::int32_t>(ring);
  frame.slot = slot;
  const SharedClient::Said said = [&] {
    const nb::gil_scoped_release unlocked;
    return self.say([&](AttachClient& client) { return client.copy(frame, out.data(), out.size()); });
  }();
  if (said.status != MMEDGE_OK && said.status != MMEDGE_GONE) raise(said.status, said.text);
  return said.status == MMEDGE_OK;
}

nb::tuple push(SharedClient& self, const std::string& input, const Input& data, int dtype,
               const std::vector<std::uint64_t>& shape, Nanoseconds capture_ns) {
  check<std::uint8_t>(data, "data");
  mmedge_array array{};
  array.data = data.data();
  std::memcpy(&array.dtype, &dtype, sizeof array.dtype);
  array.ndim = static_cast<std::uint32_t>(shape.size());
  std::copy_n(shape.begin(), std::min<std::size_t>(shape.size(), 8), array.shape);
  if (AttachClient::bytes_of(array) != data.size())
    throw std::invalid_argument("data has not as many bytes as its shape and dtype take");
  const SharedClient::Said said = [&] {
    const nb::gil_scoped_release unlocked;
    return self.say([&](AttachClient& client) { return client.push(input, array, capture_ns); });
  }();
  return nb::make_tuple(static_cast<int>(said.status), said.text);
}

nb::tuple push_text(SharedClient& self, const std::string& input, const std::string& text,
                    Nanoseconds capture_ns) {
  const SharedClient::Said said = [&] {
    const nb::gil_scoped_release unlocked;
    return self.say([&](AttachClient& client) { return client.push_text(input, text, capture_ns); });
  }();
  return nb::make_tuple(static_cast<int>(said.status), said.text);
}

}  // namespace

void bind_attach_client(nb::module_& m) {
  nb::class_<SharedClient>(m, "AttachClient",
                           "A program's side of the line to a running pipeline; any thread may use it.\n\n"
                           "Once it is closed its methods raise ValueError.")
      .def(
          "__init__",
          [](SharedClient* self, const std::string& path) {
            try {
              const nb::gil_scoped_release unlocked;
              new (self) SharedClient(path);
            } catch (const std::system_error&) {
              throw;
            } catch (const std::runtime_error& error) {
              raise(PyExc_OSError, error.what());
            }
          },
          nb::arg("path"),
          "Attach to the pipeline that listens on ``path``; waits at most 5 s.\n\n"
          "Raises:\n    OSError: If no pipeline is there, or it does not want this program.\n"
          "    ValueError: If it is no path of a socket.")
      .def("next", &next, nb::arg("timeout_ms"),
           nb::sig("def next(self, timeout_ms: int) -> tuple[bytes, list[tuple[typing.Any, ...]]] | None"),
           "Wait for the next result: its line of JSON, and where the pictures lie it was made from.\n\n"
           "Of each picture: input, ring, slot, seq, bytes, format, matrix, width, height, capture_ns,\n"
           "uncertainty_ns, rotation, mirrored, full_range, shape of a pixel; ring 0 is nowhere. A negative\n"
           "timeout is none.\n\n"
           "Returns:\n    None where nothing came in time.\n\n"
           "Raises:\n    EOFError: If the run has ended.\n    OSError: If it has died, or says what cannot "
           "be.")
      .def(
          "copy", &copy, nb::arg("ring"), nb::arg("slot"), nb::arg("seq"), nb::arg("out").noconvert(),
          nb::sig("def copy(self, ring: int, slot: int, seq: int, out: numpy.typing.NDArray[numpy.uint8]) -> "
                  "bool"),
          "Copy the first len(out) bytes of a picture.\n\n"
          "False if they were overwritten, also meanwhile; ``out`` is undefined then.")
      .def("push", &push, nb::arg("input"), nb::arg("data").noconvert(), nb::arg("dtype"), nb::arg("shape"),
           nb::arg("capture_ns"),
           nb::sig("def push(self, input: str, data: numpy.typing.NDArray[numpy.uint8], dtype: int, shape: "
                   "collections.abc.Sequence[int], capture_ns: int) -> tuple[int, str]"),
           "Push the bytes [n] of an array; return a ``mmedge_status`` and why it is not 0.\n\n"
           "``dtype`` is a ``mmedge_dtype``. 2: the run has ended; 5: the pipeline is behind; 6: pushed, but "
           "it\n"
           "refused one before; 7: the pipeline has no such input; 8: it has died.")
      .def("push_text", &push_text, nb::arg("input"), nb::arg("text"), nb::arg("capture_ns"),
           nb::sig("def push_text(self, input: str, text: str, capture_ns: int) -> tuple[int, str]"),
           "Push a text of up to 64 KiB; return what ``push`` does. \"\" takes the text back.")
      // Another thread may hold the lock for seconds: it waits for the pipeline to let it push.
      .def("close", &SharedClient::close, nb::call_guard<nb::gil_scoped_release>(),
           "Leave the pipeline; idempotent.")
      .def_prop_ro("fd", &SharedClient::fd, nb::call_guard<nb::gil_scoped_release>(),
                   "A descriptor that is readable when ``next`` may have something.")
      .def_prop_ro("dropped", &SharedClient::dropped, nb::call_guard<nb::gil_scoped_release>(),
                   "Results that were lost because they were not read in time.");
}

}  // namespace mmedge::bindings
