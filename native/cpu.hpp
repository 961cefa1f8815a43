// Which instruction sets this process may use, asked of the processor itself.
#pragma once

#include <string>
#include <vector>

namespace mmedge {

// Names as in Linux's cpuinfo, of those alone that change what 8-bit, 16-bit and float kernels compute.
// The kernel's own list (/proc/cpuinfo) is that of the host where a process is emulated.
std::vector<std::string> cpu_features();

}  // namespace mmedge
