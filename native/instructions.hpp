// Which instruction set the pixel kernels use. All of them give the same bits.
#pragma once

#include <string>
#include <vector>

namespace mmedge {

enum class Instructions { scalar, sse41, avx2, avx512, neon };

// What this process can use, best first; `scalar`, which defines the result, is always the last.
const std::vector<Instructions>& usable_instructions();

std::string name_of(Instructions instructions);

// Throws std::invalid_argument if the name is not known, or not usable here.
Instructions instructions_named(const std::string& name);

}  // namespace mmedge
