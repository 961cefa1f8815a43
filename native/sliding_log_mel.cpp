#include "sliding_log_mel.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace mmedge {
namespace {

constexpr std::size_t kFamilies = 16;
constexpr std::int64_t kFarthest = std::int64_t{1} << 61;  // differences of indices fit
constexpr std::size_t kValues = std::size_t{1} << 20;      // kept by all of them together: 4 MiB

}  // namespace

SlidingLogMel::SlidingLogMel(const LogMelSpec& spec, const float* filters, std::size_t samples)
    : log_mel_(spec, filters),
      hop_(static_cast<std::int64_t>(spec.hop_samples)),
      frame_samples_(spec.window_samples),
      samples_(samples),
      frames_(log_mel_.frames(samples)),
      pcm_(samples) {
  if (frames_ < 1) throw std::invalid_argument("the window is shorter than one frame");
  const std::size_t fit = kValues / (frames_ * spec.n_mels);
  families_.resize(std::max<std::size_t>(1, std::min({kFamilies, spec.hop_samples, fit})));
}

SlidingLogMel::Place SlidingLogMel::place(std::int64_t end) const {
  if (end < -kFarthest || end > kFarthest)
    throw std::invalid_argument("the window ends beyond sample index 2**61");
  const std::int64_t begin = end - static_cast<std::int64_t>(samples_);
  const std::int64_t phase = (begin % hop_ + hop_) % hop_;
  return {phase, (begin - phase) / hop_};
}

const SlidingLogMel::Family* SlidingLogMel::find(std::int64_t phase) const {
  for (const Family& family : families_)
    if (family.phase == phase) return &family;
  return nullptr;
}

// How many of the window's first frames are kept; 0 unless the newest that is kept is among its frames.
std::size_t SlidingLogMel::known(std::int64_t end) const {
  const Place at = place(end);
  const Family* family = find(at.phase);
  if (family == nullptr) return 0;
  const std::int64_t shared = family->next - at.first;
  return shared < 1 || shared > static_cast<std::int64_t>(frames_) ? 0 : static_cast<std::size_t>(shared);
}

std::size_t SlidingLogMel::wanted(std::int64_t end) const {
  const std::size_t kept = known(end);
  return kept == 0 ? samples_ : samples_ - (kept - 1) * static_cast<std::size_t>(hop_);
}

bool SlidingLogMel::compute(const float* tail, std::int64_t end, float* out) {
  const Place at = place(end);
  std::size_t kept = known(end);
  Family* family = const_cast<Family*>(find(at.phase));
  if (kept > 0 && std::memcmp(tail, family->guard.data(), frame_samples_ * sizeof(float)) != 0) {
    forget();
    return false;
  }
  if (kept > 0) tail += hop_;  // behind the newest frame that is kept
  const std::size_t missing = frames_ - kept, width = n_mels();
  if (missing > 0) {
    log_mel_.compute(tail, frame_samples_ + (missing - 1) * static_cast<std::size_t>(hop_),
                     out + kept * width);
    if (family == nullptr) {
      family = &*std::min_element(families_.begin(), families_.end(),
                                  [](const Family& a, const Family& b) { return a.used < b.used; });
      family->phase = at.phase;
      family->rows.resize(frames_ * width);
      family->guard.resize(frame_samples_);
    }
    copy(*family, at.first, kept, out);
    keep(*family, at.first + static_cast<std::int64_t>(kept), missing, out + kept * width);
    std::copy_n(tail + (missing - 1) * static_cast<std::size_t>(hop_), frame_samples_, family->guard.begin());
    family->next = at.first + static_cast<std::int64_t>(frames_);
  } else {
    copy(*family, at.first, kept, out);
  }
  family->used = ++clock_;
  return true;
}

void SlidingLogMel::read(const SampleRing& ring, std::int64_t end, float* out) {
  do {
    ring.read(end, pcm_.data(), wanted(end));
  } while (!compute(pcm_.data(), end, out));
}

void SlidingLogMel::forget() {
  for (Family& family : families_) {
    family.phase = -1;
    family.used = 0;
  }
}

void SlidingLogMel::copy(const Family& family, std::int64_t first, std::size_t count, float* out) const {
  const auto all = static_cast<std::int64_t>(frames_);
  const auto row = static_cast<std::size_t>((first % all + all) % all), width = n_mels();
  const std::size_t before = std::min(count, frames_ - row);
  std::copy_n(family.rows.data() + row * width, before * width, out);
  std::copy_n(family.rows.data(), (count - before) * width, out + before * width);
}

void SlidingLogMel::keep(Family& family, std::int64_t first, std::size_t count, const float* rows) const {
  const auto all = static_cast<std::int64_t>(frames_);
  const auto row = static_cast<std::size_t>((first % all + all) % all), width = n_mels();
  const std::size_t before = std::min(count, frames_ - row);
  std::copy_n(rows, before * width, family.rows.data() + row * width);
  std::copy_n(rows + before * width, (count - before) * width, family.rows.data());
}

}  // namespace mmedge
