#include "shared_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace mmedge {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

SharedMemory SharedMemory::create(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(std::numeric_limits<off_t>::max()))
    throw std::invalid_argument("too many bytes of shared memory");
  SharedMemory memory(memfd_create("mmedge", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.fd_ < 0) fail("memfd_create");
  if (ftruncate(memory.fd_, static_cast<off_t>(bytes)) != 0) fail("cannot size shared memory");
  if (fcntl(memory.fd_, F_ADD_SEALS, kSeals) != 0) fail("cannot seal shared memory");
  memory.map(bytes, true);
  return memory;
}

SharedMemory SharedMemory::attach(int fd, bool writable) {
  SharedMemory memory(fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (memory.fd_ < 0) fail("cannot duplicate the descriptor of shared memory");
  const int seals = fcntl(memory.fd_, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
    throw std::invalid_argument("the descriptor is not memory that is sealed against shrinking");
  struct stat status{};
  if (fstat(memory.fd_, &status) != 0) fail("cannot size shared memory");
  if (status.st_size < 1) throw std::invalid_argument("the shared memory is empty");
  memory.map(static_cast<std::size_t>(status.st_size), writable);
  return memory;
}

void SharedMemory::map(std::size_t bytes, bool writable) {
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* const data = mmap(nullptr, bytes, access, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) fail("cannot map shared memory");
  data_ = data;
  size_ = bytes;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, size_);
  if (fd_ >= 0) close(fd_);
}

}  // namespace mmedge
