// A program's side of the line to a running pipeline; mmedge.h says what it promises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attach/descriptor.hpp"
#include "attach/picture_rings.hpp"
#include "attach/push_ring.hpp"
#include "attach/record.hpp"
#include "attach/socket.hpp"
#include "include/mmedge.h"
#include "slot_ring.hpp"

namespace mmedge::attach {

class AttachClient;

// A result that a program holds: its slot is not written again until it is released.
struct Result {
  AttachClient* client = nullptr;
  std::int64_t slot = -1;  // -1: nobody holds it
  RecordView record;
  std::vector<std::shared_ptr<const SlotRing>> rings;  // that frames of it point into
};

// Attaches when it is made, leaves when it is destroyed; one thread at a time. Its methods throw nothing:
// what is not MMEDGE_OK has its words in `error`.
//
// Results come through a ring of their own and an eventfd, everything else over the socket, which is heard
// whenever it may matter: while nothing has come, before a push, when a picture lies in an unknown ring. Once
// the run has ended, or said what cannot be, results that were published before are still given.
class AttachClient {
 public:
  // Throws std::invalid_argument for what cannot be a path, else std::system_error or std::runtime_error.
  explicit AttachClient(const std::string& path);
  AttachClient(const AttachClient&) = delete;
  AttachClient& operator=(const AttachClient&) = delete;

  // Waits `timeout_ms`, or for ever if that is negative. *result stays the client's, lent until `release`.
  mmedge_status next(std::int64_t timeout_ms, Result** result) noexcept;
  // A result of another client, or one that was released, is left alone.
  void release(Result* result) noexcept;

  mmedge_status task(const Result& result, const char* name, mmedge_task* task) noexcept;
  mmedge_status frame(Result& result, const char* input, mmedge_frame* frame) noexcept;
  bool intact(const mmedge_frame& frame) const noexcept;
  mmedge_status copy(const mmedge_frame& frame, void* out, std::size_t size) noexcept;

  // How many bytes the data of an array has; throws std::invalid_argument where it cannot be pushed.
  static std::uint64_t bytes_of(const mmedge_array& array);
  mmedge_status push(std::string_view input, const mmedge_array& array, std::int64_t capture_ns) noexcept;
  mmedge_status push_text(std::string_view input, std::string_view text, std::int64_t capture_ns) noexcept;

  // Readable when `next` may have something.
  int fd() const { return ready_.get(); }
  std::uint64_t dropped() const { return results_->dropped(); }
  const char* error() const { return error_; }
  // Keeps the words, and returns the status.
  mmedge_status say(mmedge_status status, std::string_view words) noexcept;

 private:
  // An input that something was pushed into.
  struct Pushing {
    std::optional<PushRing> ring;
    std::optional<std::string> denied;   // why the pipeline opens none
    std::optional<std::string> refused;  // why it did not take what was pushed
  };

  void welcome();
  void listen_to(int fd);
  void hear();
  void obey(Socket::Received& received);
  void end(mmedge_status status, std::string_view words);
  bool wait(Socket::Clock::time_point until, bool for_ever);
  Result* take();
  std::shared_ptr<const SlotRing> ring(std::uint32_t number);
  void open(const std::string& input, Pushing& to, std::size_t bytes);
  mmedge_status push(std::string_view input, const Pushed& head, const void* data, std::size_t room);
  template <typename Function>
  mmedge_status guard(Function function) noexcept;

  Socket line_;
  Descriptor ready_;  // an epoll of the line and of `published_`
  Descriptor published_;
  std::optional<SlotRing> results_;
  PictureRings pictures_;
  std::map<std::string, Pushing, std::less<>> pushing_;
  std::vector<std::unique_ptr<Result>> pool_;
  std::vector<Result*> idle_;
  mmedge_status over_ = MMEDGE_OK;  // MMEDGE_ENDED or MMEDGE_FAILED once no more comes
  std::string why_;
  char error_[1024] = {};
};

}  // namespace mmedge::attach
