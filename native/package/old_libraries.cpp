// What the compiler's headers ask of newer system libraries than manylinux_2_28 has (glibc 2.28, libstdc++
// 8): the same by what those have. Each name is hidden, so nothing but this wheel uses it. Built without
// link-time optimisation, which does not know .symver.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <new>

#if defined(__aarch64__)
#define FIRST_GLIBC "GLIBC_2.17"
#else
#define FIRST_GLIBC "GLIBC_2.2.5"
#endif
#define HIDDEN extern "C" __attribute__((visibility("hidden"), used))

// 2.29 made them leave out the error handler of System V; what they compute is the same code.
__asm__(".symver old_exp, exp@" FIRST_GLIBC);
__asm__(".symver old_log, log@" FIRST_GLIBC);
extern "C" double old_exp(double);
extern "C" double old_log(double);
HIDDEN double exp(double x) { return old_exp(x); }
HIDDEN double log(double x) { return old_log(x); }

// Until 2.34 they were in libdl. An interpreter that loads extensions has loaded that, so they are found
// there.
__asm__(".symver old_dlopen, dlopen@" FIRST_GLIBC);
__asm__(".symver old_dlsym, dlsym@" FIRST_GLIBC);
extern "C" void* old_dlopen(const char* file, int mode);
extern "C" void* old_dlsym(void* library, const char* name);
HIDDEN void* dlopen(const char* file, int mode) { return old_dlopen(file, mode); }
HIDDEN void* dlsym(void* library, const char* name) { return old_dlsym(library, name); }

// Until 2.33 it was inline in sys/stat.h. On 64-bit machines the kernel's structure is glibc's.
HIDDEN int fstat(int handle, struct stat* status) {
  return static_cast<int>(syscall(SYS_fstat, handle, status));
}

// It was in libpthread; here it is the same call of the kernel's.
HIDDEN int pthread_sigmask(int how, const sigset_t* set, sigset_t* before) {
  return sigprocmask(how, set, before) == 0 ? 0 : errno;
}

// Whether std::shared_ptr may count without atomic instructions (2.32): never.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

// Waiting by the monotonic clock (2.30). Before, a condition waits by the wall clock alone, which may be set:
// so it waits in short pieces, and the monotonic clock says when it is over.
HIDDEN int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                                  const struct timespec* until) {
  constexpr std::int64_t second_ns = 1'000'000'000, piece_ns = 50'000'000;
  const auto read = [](clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return now.tv_sec * second_ns + now.tv_nsec;
  };
  const std::int64_t end_ns = until->tv_sec * second_ns + until->tv_nsec;
  while (true) {
    const std::int64_t left_ns = end_ns - read(clock);
    if (left_ns <= 0) return ETIMEDOUT;
    const std::int64_t wake_ns = read(CLOCK_REALTIME) + std::min(left_ns, piece_ns);
    const struct timespec wake = {wake_ns / second_ns, wake_ns % second_ns};
    if (const int result = pthread_cond_timedwait(condition, mutex, &wake); result != ETIMEDOUT)
      return result;
  }
}

// libstdc++ 11 throws it where an array's size overflows.
__attribute__((visibility("hidden"), used, noreturn)) void throw_bad_array_new_length() __asm__(
    "_ZSt28__throw_bad_array_new_lengthv");
void throw_bad_array_new_length() { throw std::bad_array_new_length(); }

// libstdc++ 11 counts std::exception_ptr by these two; before, its assignment did. (Its constructors and
// destructor are inline in today's headers and call these: nothing in this wheel may assign one, or it would
// call itself.)
extern "C" void* assign_exception(void** held,
                                  void* const* from) __asm__("_ZNSt15__exception_ptr13exception_ptraSERKS0_");
HIDDEN void add_reference(void** held) __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
HIDDEN void add_reference(void** held) {
  void* counted = nullptr;  // never dropped: what it counts is the new reference
  assign_exception(&counted, held);
}
HIDDEN void release(void** held) __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
HIDDEN void release(void** held) {
  void* const nothing = nullptr;
  assign_exception(held, &nothing);
}
