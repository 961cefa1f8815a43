#include "attach/client.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace mmedge::attach {
namespace {

constexpr std::chrono::seconds kPatience{5};
constexpr std::size_t kMaxText = 1 << 16;
constexpr std::uint64_t kOne = 1;

// Nobody waits as many days; the clock's numbers stay within their bounds.
constexpr std::int64_t kLongest = std::int64_t{1} << 40;

SlotRing ring_of(const Descriptor& fd, bool writable) {
  try {
    return writable ? SlotRing::attach(fd.get()) : SlotRing::watch(fd.get());
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(std::string("the pipeline sent what is no ring: ") + error.what());
  }
}

// Bytes of a value. C may bring a number that the enumeration does not have, so it is read as a number.
std::uint64_t size_of(const mmedge_dtype& dtype) {
  std::uint32_t number = 0;
  static_assert(sizeof number == sizeof dtype);
  std::memcpy(&number, &dtype, sizeof number);
  switch (number) {
    case MMEDGE_UINT8:
    case MMEDGE_INT8:
    case MMEDGE_BOOL:
      return 1;
    case MMEDGE_INT16:
    case MMEDGE_FLOAT16:
      return 2;
    case MMEDGE_INT32:
    case MMEDGE_FLOAT32:
      return 4;
    case MMEDGE_INT64:
    case MMEDGE_FLOAT64:
      return 8;
    default:
      throw std::invalid_argument("an array of unknown dtype");
  }
}

Pushed head_of(const mmedge_array& array, std::int64_t capture_ns) {
  Pushed head{};
  head.bytes = AttachClient::bytes_of(array);
  if (head.bytes > 0 && array.data == nullptr) throw std::invalid_argument("an array without data");
  head.capture_ns = capture_ns;
  head.dtype = static_cast<std::uint32_t>(array.dtype);
  head.ndim = array.ndim;
  std::copy_n(array.shape, array.ndim, head.shape);
  return head;
}

}  // namespace

AttachClient::AttachClient(const std::string& path)
    : line_(Socket::connect(path, kPatience)), ready_(epoll_create1(EPOLL_CLOEXEC)) {
  if (ready_.get() < 0) throw std::system_error(errno, std::generic_category(), "no epoll");
  welcome();
  listen_to(line_.fd());
  listen_to(published_.get());
}

void AttachClient::welcome() {
  const auto until = Socket::Clock::now() + kPatience;
  line_.send(Message{});  // who has left may have said why
  while (!results_) {
    if (!line_.wait(until)) throw std::runtime_error("the pipeline does not answer");
    hear();
    if (over_ != MMEDGE_OK) throw std::runtime_error(why_);
  }
}

void AttachClient::listen_to(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(ready_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    throw std::system_error(errno, std::generic_category(), "the pipeline sent what cannot be waited for");
}

void AttachClient::hear() {
  Socket::Received received;
  try {
    while (over_ == MMEDGE_OK) {
      const Socket::Got got = line_.receive(received);
      if (got == Socket::Got::kNothing) return;
      if (got == Socket::Got::kEnd) return end(MMEDGE_FAILED, "the pipeline has died");
      obey(received);
    }
  } catch (const std::exception& error) {
    end(MMEDGE_FAILED, error.what());
  }
}

void AttachClient::obey(Socket::Received& received) {
  const Message& message = received.message;
  auto& [ring, wake] = received.descriptors;
  const auto found = pushing_.find(std::string_view(message.name));
  Pushing* const to = found == pushing_.end() ? nullptr : &found->second;
  if (!results_ && message.kind != Kind::kWelcome && message.kind != Kind::kEnded)
    throw std::runtime_error("the pipeline did not greet first");
  if (message.kind == Kind::kWelcome) {
    if (results_) throw std::runtime_error("the pipeline greeted twice");
    results_.emplace(ring_of(ring, true));
    published_ = std::move(wake);
  } else if (message.kind == Kind::kRing) {
    if (message.number == 0) throw std::runtime_error("the pipeline sent a ring without a number");
    pictures_.add(message.number, message.name, ring_of(ring, false));
  } else if (message.kind == Kind::kOpened && to != nullptr) {
    to->ring.emplace(ring_of(ring, true), std::move(wake));
  } else if (message.kind == Kind::kRefused && to != nullptr) {
    (message.number == 0 ? to->denied : to->refused) = message.text;
  } else if (message.kind == Kind::kEnded) {
    const bool orderly = *message.text == '\0';
    end(orderly ? MMEDGE_ENDED : MMEDGE_FAILED, orderly ? "the run has ended" : message.text);
  }
}

// Who polls `fd` is told of it from now on, whoever was here when it was heard.
void AttachClient::end(mmedge_status status, std::string_view words) {
  over_ = status;
  why_ = words;
  [[maybe_unused]] const ssize_t n = write(published_.get(), &kOne, sizeof kOne);
}

mmedge_status AttachClient::next(std::int64_t timeout_ms, Result** result) noexcept {
  return guard([&] {
    const bool for_ever = timeout_ms < 0;
    const auto until =
        Socket::Clock::now() + std::chrono::milliseconds(std::clamp<std::int64_t>(timeout_ms, 0, kLongest));
    for (bool more = true;;) {
      const mmedge_status ended = over_;  // what was published before that is there by now
      *result = take();
      if (*result != nullptr) return MMEDGE_OK;
      if (ended != MMEDGE_OK) return say(ended, why_);
      if (pool_.size() - idle_.size() >= static_cast<std::size_t>(results_->slots()))
        return say(MMEDGE_INVALID, "all results that there is room for are held: release some");
      if (!more) return say(MMEDGE_TIMEOUT, "nothing came in time");
      more = wait(until, for_ever);
    }
  });
}

// The eventfd is reset only here, where there was no result: as long as there are, `fd` is readable. Returns
// whether there is time for another look after the next.
bool AttachClient::wait(Socket::Clock::time_point until, bool for_ever) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Socket::Clock::now()).count();
  const int most = std::numeric_limits<int>::max();
  epoll_event events[2];
  const int n = epoll_wait(ready_.get(), events, 2,
                           for_ever ? -1 : static_cast<int>(std::clamp<std::int64_t>(left, 0, most)));
  if (n < 0 && errno != EINTR)
    throw std::system_error(errno, std::generic_category(), "cannot wait for the pipeline");
  for (int i = 0; i < n; ++i) {
    std::uint64_t times = 0;
    if (events[i].data.fd == line_.fd()) {
      hear();
    } else if (read(published_.get(), &times, sizeof times) < 0 && errno != EAGAIN && errno != EINTR) {
      throw std::system_error(errno, std::generic_category(), "cannot wait for results");
    }
  }
  return for_ever || left > 0;
}

Result* AttachClient::take() {
  if (idle_.empty()) {
    pool_.push_back(std::make_unique<Result>());
    idle_.reserve(pool_.size());  // so that a release never allocates
    idle_.push_back(pool_.back().get());
  }
  const std::optional<SlotRing::Taken> taken = results_->take();
  if (!taken) return nullptr;
  try {
    std::uint32_t size = 0;
    if (taken->header.size() == sizeof size) std::memcpy(&size, taken->header.data(), sizeof size);
    if (size > static_cast<std::uint64_t>(results_->slot_bytes()))
      throw std::runtime_error("a result is longer than its slot");
    Result* const result = idle_.back();
    result->record = RecordView(results_->data(taken->index), size);
    result->client = this;
    result->slot = taken->index;
    idle_.pop_back();
    return result;
  } catch (...) {
    results_->release(taken->index);
    throw;
  }
}

void AttachClient::release(Result* result) noexcept {
  if (result == nullptr || result->client != this || result->slot < 0) return;
  results_->release(std::exchange(result->slot, -1));
  result->rings.clear();
  idle_.push_back(result);
}

mmedge_status AttachClient::task(const Result& result, const char* name, mmedge_task* task) noexcept {
  return guard([&] {
    const Task* const found = result.record.task(name);
    if (found == nullptr) return say(MMEDGE_ABSENT, "the result has no task '" + std::string(name) + "'");
    *task = {found->has_label != 0 ? found->label : nullptr, found->score, found->value, {}};
    return MMEDGE_OK;
  });
}

mmedge_status AttachClient::frame(Result& result, const char* input, mmedge_frame* frame) noexcept {
  return guard([&] {
    const Picture* const found = result.record.picture(std::string_view(input));
    const Picture at = found == nullptr ? Picture{} : *found;
    if (at.ring == 0)
      return say(MMEDGE_ABSENT, "the result has no picture of input '" + std::string(input) + "' to look at");
    check_size(at);
    const std::shared_ptr<const SlotRing> pictures = ring(at.ring);
    if (pictures == nullptr) return say(MMEDGE_GONE, "the picture is of before the input began anew");
    if (at.slot < 0 || at.slot >= pictures->slots() ||
        at.bytes > static_cast<std::uint64_t>(pictures->slot_bytes()))
      throw std::runtime_error("a picture does not lie in its ring");
    if (!pictures->holds(at.slot, at.seq)) return say(MMEDGE_GONE, "the picture was overwritten");
    if (std::find(result.rings.begin(), result.rings.end(), pictures) == result.rings.end())
      result.rings.push_back(pictures);
    *frame = {pictures->data(at.slot),
              static_cast<std::size_t>(at.bytes),
              found->format,
              at.width,
              at.height,
              at.capture_ns,
              at.uncertainty_ns,
              at.rotation,
              at.mirrored,
              at.full_range,
              at.pixel_width,
              at.pixel_height,
              found->matrix,
              at.seq,
              static_cast<std::int32_t>(at.ring),
              at.slot,
              {}};
    return MMEDGE_OK;
  });
}

// The pipeline sends a ring before the first result that tells of it.
std::shared_ptr<const SlotRing> AttachClient::ring(std::uint32_t number) {
  std::shared_ptr<const SlotRing> found = pictures_.find(number);
  if (found != nullptr) return found;
  hear();
  return pictures_.find(number);
}

bool AttachClient::intact(const mmedge_frame& frame) const noexcept {
  const std::shared_ptr<const SlotRing> pictures = pictures_.find(static_cast<std::uint32_t>(frame.ring));
  return pictures != nullptr && frame.slot >= 0 && frame.slot < pictures->slots() &&
         pictures->holds(frame.slot, frame.seq);
}

mmedge_status AttachClient::copy(const mmedge_frame& frame, void* out, std::size_t size) noexcept {
  return guard([&] {
    if (size < frame.bytes) throw std::invalid_argument("the picture does not fit into so few bytes");
    const std::shared_ptr<const SlotRing> pictures = ring(static_cast<std::uint32_t>(frame.ring));
    if (pictures == nullptr) return say(MMEDGE_GONE, "the picture is of before the input began anew");
    if (frame.slot < 0 || frame.slot >= pictures->slots())
      throw std::invalid_argument("the frame is none of this pipeline's");
    const bool whole = pictures->copy(frame.slot, frame.seq, static_cast<std::uint8_t*>(out), frame.bytes);
    return whole ? MMEDGE_OK : say(MMEDGE_GONE, "the picture was overwritten");
  });
}

std::uint64_t AttachClient::bytes_of(const mmedge_array& array) {
  if (array.ndim < 1 || array.ndim > 8) throw std::invalid_argument("an array has 1 to 8 dimensions");
  std::uint64_t bytes = size_of(array.dtype);
  for (std::uint32_t i = 0; i < array.ndim; ++i)
    if (__builtin_mul_overflow(bytes, array.shape[i], &bytes) || bytes > kMaxPush)
      throw std::invalid_argument("an array of more than " + std::to_string(kMaxPush) + " bytes");
  return bytes;
}

mmedge_status AttachClient::push(std::string_view input, const mmedge_array& array,
                                 std::int64_t capture_ns) noexcept {
  return guard([&] {
    const Pushed head = head_of(array, capture_ns);
    return push(input, head, array.data, static_cast<std::size_t>(head.bytes));
  });
}

// The ring is opened once for texts of any length.
mmedge_status AttachClient::push_text(std::string_view input, std::string_view text,
                                      std::int64_t capture_ns) noexcept {
  return guard([&] {
    if (text.size() > kMaxText) throw std::invalid_argument("a text has at most 65536 bytes");
    Pushed head{};
    head.capture_ns = capture_ns;
    head.bytes = text.size();
    return push(input, head, text.data(), kMaxText);
  });
}

mmedge_status AttachClient::push(std::string_view input, const Pushed& head, const void* data,
                                 std::size_t room) {
  if (input.empty() || input.size() >= kName || input.find('\0') != input.npos)
    throw std::invalid_argument("an input's name has 1 to 63 bytes");
  hear();
  if (over_ != MMEDGE_OK) return say(over_, why_);
  auto found = pushing_.find(input);
  if (found == pushing_.end()) found = pushing_.emplace(input, Pushing{}).first;
  Pushing& to = found->second;
  if (!to.ring || to.ring->room() < room) open(found->first, to, room);
  if (over_ != MMEDGE_OK) return say(over_, why_);
  if (!to.ring->push(head, data)) return say(MMEDGE_FULL, "the pipeline is behind");
  if (!to.refused) return MMEDGE_OK;
  const std::string refused = *std::exchange(to.refused, std::nullopt);
  return say(MMEDGE_REFUSED, refused);
}

// What grows is given twice the room, so that it is not opened anew at each push. Throws
// std::invalid_argument where the pipeline has no such input or takes no such packet.
void AttachClient::open(const std::string& input, Pushing& to, std::size_t bytes) {
  Message message;
  message.kind = Kind::kOpen;
  message.bytes = std::max<std::size_t>(bytes, 1);
  if (to.ring) message.bytes = std::max(bytes, std::min(2 * to.ring->room(), kMaxPush));
  input.copy(message.name, kName - 1);
  to.ring.reset();
  to.denied.reset();
  const auto until = Socket::Clock::now() + kPatience;
  if (!line_.send(message)) {
    hear();
    if (over_ == MMEDGE_OK) end(MMEDGE_FAILED, "the pipeline has died");
  }
  while (over_ == MMEDGE_OK && !to.ring) {
    if (to.denied) throw std::invalid_argument(*to.denied);
    if (!line_.wait(until)) throw std::runtime_error("the pipeline does not answer");
    hear();
  }
  if (to.ring && to.ring->room() < bytes) throw std::runtime_error("the pipeline opened too small a ring");
}

mmedge_status AttachClient::say(mmedge_status status, std::string_view words) noexcept {
  error_[words.copy(error_, sizeof error_ - 1)] = 0;
  return status;
}

template <typename Function>
mmedge_status AttachClient::guard(Function function) noexcept {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return say(MMEDGE_FAILED, "out of memory");
  } catch (const std::invalid_argument& error) {
    return say(MMEDGE_INVALID, error.what());
  } catch (const std::exception& error) {
    return say(MMEDGE_FAILED, error.what());
  }
}

}  // namespace mmedge::attach
