#include "instructions.hpp"

#include <algorithm>
#include <stdexcept>

#include "cpu.hpp"

namespace mmedge {
namespace {

std::vector<Instructions> find_usable() {
  std::vector<Instructions> found;
#if defined(__x86_64__)
  const std::vector<std::string> features = cpu_features();
  const auto has = [&](const char* name) {
    return std::find(features.begin(), features.end(), name) != features.end();
  };
  if (has("avx2") && has("fma")) {
    if (has("avx512f") && has("avx512bw") && has("avx512vl")) found.push_back(Instructions::avx512);
    found.push_back(Instructions::avx2);
  }
  if (__builtin_cpu_supports("sse4.1")) found.push_back(Instructions::sse41);
#elif defined(__aarch64__)
  found.push_back(Instructions::neon);  // every 64-bit ARM has it
#endif
  found.push_back(Instructions::scalar);
  return found;
}

}  // namespace

const std::vector<Instructions>& usable_instructions() {
  static const std::vector<Instructions> found = find_usable();
  return found;
}

std::string name_of(Instructions instructions) {
  switch (instructions) {
    case Instructions::sse41:
      return "sse41";
    case Instructions::avx2:
      return "avx2";
    case Instructions::avx512:
      return "avx512";
    case Instructions::neon:
      return "neon";
    default:
      return "scalar";
  }
}

Instructions instructions_named(const std::string& name) {
  std::string known;
  for (const Instructions one : usable_instructions()) {
    if (name_of(one) == name) return one;
    known += (known.empty() ? "" : ", ") + name_of(one);
  }
  throw std::invalid_argument("this machine cannot use the instructions '" + name +
                              "'; it can use: " + known);
}

}  // namespace mmedge
