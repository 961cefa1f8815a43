// The functions of mmedge.h, over AttachClient: no exception leaves them.
#include <time.h>

#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#include "attach/client.hpp"
#include "include/mmedge.h"

// Programs that were built before bring structs of these sizes.
static_assert(sizeof(void*) != 8 ||
              (sizeof(mmedge_task) == 56 && sizeof(mmedge_frame) == 128 && sizeof(mmedge_array) == 80));

namespace {

using mmedge::attach::AttachClient;
using mmedge::attach::Result;

// Words of what has no client.
thread_local char error_of_thread[1024];

mmedge_status say(mmedge_status status, std::string_view words) noexcept {
  error_of_thread[words.copy(error_of_thread, sizeof error_of_thread - 1)] = 0;
  return status;
}

// The names of C stand for these two classes, and nothing is behind them else.
AttachClient* in(mmedge_client* client) { return reinterpret_cast<AttachClient*>(client); }
const AttachClient* in(const mmedge_client* client) { return reinterpret_cast<const AttachClient*>(client); }
Result* in(mmedge_result* result) { return reinterpret_cast<Result*>(result); }
const Result* in(const mmedge_result* result) { return reinterpret_cast<const Result*>(result); }

mmedge_status null(AttachClient* client) {
  const std::string_view words = "an argument is NULL";
  return client == nullptr ? say(MMEDGE_INVALID, words) : client->say(MMEDGE_INVALID, words);
}

}  // namespace

int mmedge_abi(void) { return MMEDGE_ABI; }

int64_t mmedge_now_ns(void) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

mmedge_status mmedge_attach(const char* path, mmedge_client** client) {
  if (path == nullptr || client == nullptr) return null(nullptr);
  try {
    *client = reinterpret_cast<mmedge_client*>(std::make_unique<AttachClient>(path).release());
    return MMEDGE_OK;
  } catch (const std::bad_alloc&) {
    return say(MMEDGE_FAILED, "out of memory");
  } catch (const std::invalid_argument& error) {
    return say(MMEDGE_INVALID, error.what());
  } catch (const std::exception& error) {
    return say(MMEDGE_FAILED, error.what());
  }
}

void mmedge_detach(mmedge_client* client) { delete in(client); }

const char* mmedge_error(const mmedge_client* client) {
  return client == nullptr ? error_of_thread : in(client)->error();
}

int mmedge_fd(const mmedge_client* client) { return client == nullptr ? -1 : in(client)->fd(); }

uint64_t mmedge_dropped(const mmedge_client* client) { return client == nullptr ? 0 : in(client)->dropped(); }

mmedge_status mmedge_next(mmedge_client* client, int64_t timeout_ms, mmedge_result** result) {
  if (client == nullptr || result == nullptr) return null(in(client));
  Result* next = nullptr;
  const mmedge_status status = in(client)->next(timeout_ms, &next);
  *result = reinterpret_cast<mmedge_result*>(next);
  return status;
}

void mmedge_release(mmedge_client* client, mmedge_result* result) {
  if (client != nullptr) in(client)->release(in(result));
}

int64_t mmedge_result_t_ns(const mmedge_result* result) {
  return result == nullptr ? 0 : in(result)->record.head().t_ns;
}

int64_t mmedge_result_unix_ns(const mmedge_result* result) {
  return result == nullptr ? 0 : in(result)->record.head().unix_ns;
}

int mmedge_result_ok(const mmedge_result* result) {
  return result != nullptr && in(result)->record.head().ok != 0;
}

const char* mmedge_result_json(const mmedge_result* result, size_t* size) {
  const std::string_view json = result == nullptr ? std::string_view("") : in(result)->record.json();
  if (size != nullptr) *size = json.size();
  return json.data();
}

mmedge_status mmedge_result_task(const mmedge_result* result, const char* name, mmedge_task* task) {
  if (result == nullptr) return null(nullptr);
  AttachClient* const client = in(result)->client;
  if (name == nullptr || task == nullptr) return null(client);
  return client->task(*in(result), name, task);
}

// A result is const to C; that it keeps alive what its frames point into does not show.
mmedge_status mmedge_result_frame(const mmedge_result* result, const char* input, mmedge_frame* frame) {
  if (result == nullptr) return null(nullptr);
  AttachClient* const client = in(result)->client;
  if (input == nullptr || frame == nullptr) return null(client);
  return client->frame(*in(const_cast<mmedge_result*>(result)), input, frame);
}

int mmedge_frame_intact(const mmedge_client* client, const mmedge_frame* frame) {
  return client != nullptr && frame != nullptr && in(client)->intact(*frame);
}

mmedge_status mmedge_frame_copy(mmedge_client* client, const mmedge_frame* frame, void* out, size_t size) {
  if (client == nullptr || frame == nullptr || out == nullptr) return null(in(client));
  return in(client)->copy(*frame, out, size);
}

mmedge_status mmedge_push(mmedge_client* client, const char* input, const mmedge_array* array,
                          int64_t capture_ns) {
  if (client == nullptr || input == nullptr || array == nullptr) return null(in(client));
  return in(client)->push(input, *array, capture_ns);
}

mmedge_status mmedge_push_text(mmedge_client* client, const char* input, const char* text,
                               int64_t capture_ns) {
  if (client == nullptr || input == nullptr || text == nullptr) return null(in(client));
  return in(client)->push_text(input, text, capture_ns);
}
