#include "lifeline.hpp"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace mmedge {
namespace {

void watch(int pidfd) {
  pollfd end{pidfd, POLLIN, 0};
  while (poll(&end, 1, -1) < 0 && errno == EINTR) {
  }
  kill(getpid(), SIGKILL);
}

}  // namespace

void end_with(int pidfd) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the thread that was there first
  try {
    std::thread(watch, pidfd).detach();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    close(pidfd);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace mmedge
