#include "attach/record.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mmedge::attach {
namespace {

constexpr std::uint32_t kMaxSide = 1 << 16;

void require(bool fine, const char* what) {
  if (!fine) throw std::runtime_error(what);
}

template <std::size_t n>
bool ends(const char (&text)[n]) {
  return std::memchr(text, 0, n) != nullptr;
}

}  // namespace

RecordView::RecordView(const std::uint8_t* data, std::size_t size) : data_(data) {
  require(size >= sizeof head_, "a result is too short");
  std::memcpy(&head_, data, sizeof head_);
  std::atomic_signal_fence(std::memory_order_seq_cst);  // the compiler reads no bound from the slot again
  require(head_.version == kVersion, "a result is of another version");
  require(head_.size == size, "a result is not as long as it says");
  // 32 bits times the size of a struct fit into 64 by far.
  const std::uint64_t before = sizeof(Record) + std::uint64_t{head_.tasks} * sizeof(Task) +
                               std::uint64_t{head_.frames} * sizeof(Picture);
  require(before <= head_.json_at && head_.json_at < size && head_.json_size < size - head_.json_at,
          "the parts of a result do not fit into it");
  require(data_[head_.json_at + head_.json_size] == 0, "the JSON of a result has no end");
  require(std::all_of(tasks(), tasks() + head_.tasks,
                      [](const Task& task) { return ends(task.name) && ends(task.label); }),
          "a task of a result has a string without an end");
  require(std::all_of(pictures(), pictures() + head_.frames,
                      [](const Picture& picture) {
                        return ends(picture.input) && ends(picture.format) && ends(picture.matrix);
                      }),
          "a picture of a result has a string without an end");
}

const Task* RecordView::task(std::string_view name) const {
  const Task* const end = tasks() + head_.tasks;
  const Task* const found = std::find_if(tasks(), end, [&](const Task& task) { return task.name == name; });
  return found == end ? nullptr : found;
}

const Picture* RecordView::picture(std::string_view input) const {
  const Picture* const end = pictures() + head_.frames;
  const Picture* const found =
      std::find_if(pictures(), end, [&](const Picture& picture) { return picture.input == input; });
  return found == end ? nullptr : found;
}

void check_size(const Picture& picture) {
  require(
      picture.width >= 1 && picture.width <= kMaxSide && picture.height >= 1 && picture.height <= kMaxSide,
      "a picture has an impossible size");
  const std::string_view format = picture.format;
  const std::uint64_t pixels = std::uint64_t{picture.width} * picture.height;
  std::uint64_t bytes = picture.bytes;
  if (format == "gray8") bytes = pixels;
  if (format == "yuv420p" || format == "nv12") bytes = pixels + pixels / 2;
  if (format == "yuv422p" || format == "yuyv422") bytes = 2 * pixels;
  if (format == "rgb24" || format == "bgr24" || format == "yuv444p") bytes = 3 * pixels;
  if (format == "p010le" || format == "yuv420p10le") bytes = 2 * (pixels + pixels / 2);
  require(bytes == picture.bytes, "a picture has not as many bytes as its size and format take");
}

}  // namespace mmedge::attach
