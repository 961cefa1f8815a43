// mmedge.hpp: mmedge.h for C++17. Nothing but this header and the library of mmedge.h is needed.
//
// What mmedge.h says holds here too: strings and frames are their result's, all times are nanoseconds on
// CLOCK_MONOTONIC, a client belongs to one thread at a time.
#ifndef MMEDGE_HPP
#define MMEDGE_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "mmedge.h"

namespace mmedge {

// What a call could not do, and mmedge_error's words for it.
class Error : public std::runtime_error {
 public:
  Error(mmedge_status status, const std::string& words) : std::runtime_error(words), status_(status) {}
  mmedge_status status() const { return status_; }

 private:
  mmedge_status status_;
};

using Frame = mmedge_frame;

struct Task {
  std::optional<std::string_view> label;  // none where it abstains, is undefined, or tells a number
  double score;                           // NaN where there is none
  double value;                           // of a task that tells a number, else NaN
};

// A result, until it is destroyed; it must not outlive its client.
class Result {
 public:
  Result(mmedge_client* client, mmedge_result* result) : result_(result, {client}), client_(client) {}

  std::int64_t t_ns() const { return mmedge_result_t_ns(result_.get()); }
  std::int64_t unix_ns() const { return mmedge_result_unix_ns(result_.get()); }
  bool ok() const { return mmedge_result_ok(result_.get()) != 0; }
  std::string_view json() const {
    std::size_t size = 0;
    const char* const line = mmedge_result_json(result_.get(), &size);
    return {line, size};
  }
  // None where the result has no such task.
  std::optional<Task> task(const std::string& name) const {
    mmedge_task task{};
    if (!found(mmedge_result_task(result_.get(), name.c_str(), &task))) return std::nullopt;
    return Task{task.label == nullptr ? std::nullopt : std::optional<std::string_view>(task.label),
                task.score, task.value};
  }
  // None where the result has no picture of that input, or it was overwritten. Look at it where it lies, then
  // ask Client::intact whether all that was seen is right.
  std::optional<Frame> frame(const std::string& input) const {
    Frame frame{};
    if (!found(mmedge_result_frame(result_.get(), input.c_str(), &frame))) return std::nullopt;
    return frame;
  }

 private:
  struct Release {
    mmedge_client* client;
    void operator()(mmedge_result* result) const { mmedge_release(client, result); }
  };

  bool found(mmedge_status status) const {
    if (status == MMEDGE_ABSENT || status == MMEDGE_GONE) return false;
    if (status != MMEDGE_OK) throw Error(status, mmedge_error(client_));
    return true;
  }

  std::unique_ptr<mmedge_result, Release> result_;
  mmedge_client* client_;
};

class Client {
 public:
  // What `push` has done, where it did not throw.
  enum class Pushed {
    kTaken,
    kFull,     // not taken: the pipeline is behind
    kRefused,  // taken; but one that was pushed before was refused, `error` says why
  };

  // Throws Error where no pipeline listens on `path`, as the functions below do where something fails.
  explicit Client(const std::string& path) {
    mmedge_client* client = nullptr;
    const mmedge_status status = mmedge_attach(path.c_str(), &client);
    if (status != MMEDGE_OK) throw Error(status, mmedge_error(nullptr));
    client_.reset(client);
  }

  // None where nothing came in time; throws Error of MMEDGE_ENDED when the run has ended. A negative timeout
  // waits for ever.
  std::optional<Result> next(std::chrono::milliseconds timeout) {
    mmedge_result* result = nullptr;
    const mmedge_status status = mmedge_next(client_.get(), timeout.count(), &result);
    if (status == MMEDGE_TIMEOUT) return std::nullopt;
    check(status);
    return Result(client_.get(), result);
  }

  bool intact(const Frame& frame) const { return mmedge_frame_intact(client_.get(), &frame) != 0; }
  // False where the picture was overwritten, also meanwhile; then `out` holds nothing that is right.
  bool copy(const Frame& frame, std::vector<std::uint8_t>& out) {
    out.resize(frame.bytes);
    const mmedge_status status = mmedge_frame_copy(client_.get(), &frame, out.data(), out.size());
    if (status != MMEDGE_GONE) check(status);
    return status == MMEDGE_OK;
  }

  Pushed push(const std::string& input, const mmedge_array& array, std::int64_t capture_ns) {
    return pushed(mmedge_push(client_.get(), input.c_str(), &array, capture_ns));
  }
  // An array [n] of numbers: a tensor, or sound as float.
  template <typename T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
  Pushed push(const std::string& input, const std::vector<T>& values, std::int64_t capture_ns) {
    return push(input, values, {values.size()}, capture_ns);
  }
  // The same as an array of any shape.
  template <typename T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
  Pushed push(const std::string& input, const std::vector<T>& values, const std::vector<std::uint64_t>& shape,
              std::int64_t capture_ns) {
    mmedge_array array{values.data(), dtype<T>(), 0, {}};
    std::uint64_t size = 1;
    for (const std::uint64_t side : shape) {
      if (array.ndim == 8) throw Error(MMEDGE_INVALID, "an array has at most 8 dimensions");
      array.shape[array.ndim++] = side;
      size *= side;
    }
    if (size != values.size()) throw Error(MMEDGE_INVALID, "the values are not as many as the shape says");
    return push(input, array, capture_ns);
  }
  // An image of 1 channel (gray) or 3 (RGB), rows without padding.
  Pushed push_image(const std::string& input, const std::uint8_t* pixels, std::uint32_t width,
                    std::uint32_t height, std::uint32_t channels, std::int64_t capture_ns) {
    const std::uint32_t ndim = channels == 1 ? 2 : 3;
    return push(input, mmedge_array{pixels, MMEDGE_UINT8, ndim, {height, width, channels}}, capture_ns);
  }
  Pushed push_text(const std::string& input, const std::string& text, std::int64_t capture_ns) {
    return pushed(mmedge_push_text(client_.get(), input.c_str(), text.c_str(), capture_ns));
  }

  // For poll() and the like: readable when `next` may have something.
  int fd() const { return mmedge_fd(client_.get()); }
  std::uint64_t dropped() const { return mmedge_dropped(client_.get()); }
  std::string error() const { return mmedge_error(client_.get()); }

 private:
  struct Detach {
    void operator()(mmedge_client* client) const { mmedge_detach(client); }
  };

  template <typename T>
  static constexpr mmedge_dtype dtype() {
    static_assert(!std::is_same_v<T, bool> && sizeof(T) <= 8, "no pipeline takes values of this type");
    if (std::is_floating_point_v<T>) return sizeof(T) == 4 ? MMEDGE_FLOAT32 : MMEDGE_FLOAT64;
    static_assert(std::is_signed_v<T> || sizeof(T) == 1, "unsigned integers have 8 bits");
    if (sizeof(T) == 1) return std::is_signed_v<T> ? MMEDGE_INT8 : MMEDGE_UINT8;
    return sizeof(T) == 2 ? MMEDGE_INT16 : sizeof(T) == 4 ? MMEDGE_INT32 : MMEDGE_INT64;
  }
  void check(mmedge_status status) const {
    if (status != MMEDGE_OK) throw Error(status, error());
  }
  Pushed pushed(mmedge_status status) const {
    if (status == MMEDGE_FULL) return Pushed::kFull;
    if (status == MMEDGE_REFUSED) return Pushed::kRefused;
    check(status);
    return Pushed::kTaken;
  }

  std::unique_ptr<mmedge_client, Detach> client_;
};

inline std::int64_t now_ns() { return mmedge_now_ns(); }

}  // namespace mmedge
#endif
