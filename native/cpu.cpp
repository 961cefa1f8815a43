#include "cpu.hpp"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace mmedge {

#if defined(__x86_64__)

namespace {

struct Leaf {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf leaf(std::uint32_t index, std::uint32_t sub) {
  Leaf result;
  // A leaf that the processor does not know stays zero.
  __get_cpuid_count(index, sub, &result.eax, &result.ebx, &result.ecx, &result.edx);
  return result;
}

// The states that the operating system saves: without them an instruction set is there and cannot be used.
std::uint64_t saved_states() {
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

}  // namespace

std::vector<std::string> cpu_features() {
  const Leaf basic = leaf(1, 0), extended = leaf(7, 0);
  const Leaf more = extended.eax >= 1 ? leaf(7, 1) : Leaf{};
  const bool can_ask = (basic.ecx >> 27) & 1;
  const std::uint64_t states = can_ask ? saved_states() : 0;
  const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xe6) == 0xe6, tile = (states & 0x60000) == 0x60000;
  std::vector<std::string> found;
  const auto add = [&found](bool usable, std::uint32_t bits, unsigned bit, const char* name) {
    if (usable && ((bits >> bit) & 1)) found.emplace_back(name);
  };
  add(ymm, extended.ebx, 5, "avx2");
  add(ymm, basic.ecx, 12, "fma");
  add(ymm, more.eax, 4, "avx_vnni");
  add(zmm, extended.ebx, 16, "avx512f");
  add(zmm, extended.ebx, 30, "avx512bw");
  add(zmm, extended.ebx, 31, "avx512vl");
  add(zmm, extended.ecx, 11, "avx512_vnni");
  add(zmm, more.eax, 5, "avx512_bf16");
  add(tile, extended.edx, 22, "amx_bf16");
  add(tile, extended.edx, 25, "amx_int8");
  return found;
}

#elif defined(__aarch64__)

std::vector<std::string> cpu_features() {
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  std::vector<std::string> found;
  if ((first >> 20) & 1) found.emplace_back("asimddp");
  if ((first >> 22) & 1) found.emplace_back("sve");
  if ((second >> 13) & 1) found.emplace_back("i8mm");
  if ((second >> 14) & 1) found.emplace_back("bf16");
  return found;
}

#else

std::vector<std::string> cpu_features() { return {}; }

#endif

}  // namespace mmedge
