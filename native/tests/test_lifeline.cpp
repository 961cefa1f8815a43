// A process ends with the one it was tied to, also if that has ended before.
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.hpp"
#include "lifeline.hpp"

namespace {

int pidfd_of(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

pid_t sleeper() {
  const pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  return pid;
}

void ends(bool before) {
  const pid_t leader = sleeper();
  const int pidfd = pidfd_of(leader);
  CHECK(pidfd >= 0);
  if (before) {
    kill(leader, SIGKILL);
    waitpid(leader, nullptr, 0);
  }
  const pid_t follower = fork();
  if (follower == 0) {
    mmedge::end_with(pidfd);
    pause();
    _exit(0);
  }
  if (!before) {
    usleep(50'000);
    CHECK(waitpid(follower, nullptr, WNOHANG) == 0);
    kill(leader, SIGKILL);
    waitpid(leader, nullptr, 0);
  }
  int status = 0;
  CHECK(waitpid(follower, &status, 0) == follower);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  close(pidfd);
}

}  // namespace

int main() {
  ends(false);
  ends(true);
  return 0;
}
