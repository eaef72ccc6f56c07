/* child.c - waiting for child processes.
 *
 * One child: asked with WNOHANG, then waited for by a pidfd in the poller.  Any child, or a group: there is
 * nothing to put into a poller, so the thread waits, handed off.  A cancelled wait reaps nothing. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

#include "sched/netpoll.h"
#include "py/interpose/hooks/hooks.h"

/* Parks until pid may have changed its state: 0: ask again.  -1: the thread must wait.  Else an errno. */
static int child_park(call *c, pid_t pid) {
  int fd = fd_opened((int)syscall(SYS_pidfd_open, pid, 0));
  pollwait w;
  if (!netpollwatch(&w, fd, true, false)) {
    if (fd >= 0) close(fd);
    return -1;
  }
  netpollsample(&w);
  call_attach(c);
  wake_t r = call_woken(c, netpollwait(&w, 1, 0, true));
  call_detach(c);
  netpollclosing(fd);
  close(fd);
  netpollclosed(fd);
  if (r == WAKE_OK || r == WAKE_CLOSED) return 0;
  return r == WAKE_BADFD || r == WAKE_NOMEM ? -1 : call_errno(c, r);
}

/* A stopped or continued child does not make its pidfd ready. */
static bool only_exits(int options) { return !(options & (WUNTRACED | WCONTINUED)); }

pid_t hook_wait4(pid_t pid, int *status, int options, struct rusage *ru) {
  call c;
  if (options & WNOHANG || !call_begin(&c, FAM_CHILD)) return real.wait4(pid, status, options, ru);
  for (;;) {
    pid_t r = real.wait4(pid, status, options | WNOHANG, ru);
    if (r > 0) return r;
    if (r < 0) return call_fail(&c, errno_get());
    int e = pid > 0 && only_exits(options) ? child_park(&c, pid) : -1;
    if (e > 0) return call_fail(&c, e);
    if (e == 0) continue;
    call_handoff();
    return real.wait4(pid, status, options, ru);
  }
}

pid_t hook_waitpid(pid_t pid, int *status, int options) { return hook_wait4(pid, status, options, NULL); }
pid_t hook_wait(int *status) { return hook_wait4(-1, status, 0, NULL); }
pid_t hook_wait3(int *status, int options, struct rusage *ru) { return hook_wait4(-1, status, options, ru); }

int hook_waitid(idtype_t type, id_t id, siginfo_t *info, int options) {
  call c;
  siginfo_t own;
  if (!info) info = &own;
  if (options & WNOHANG || !call_begin(&c, FAM_CHILD)) return real.waitid(type, id, info, options);
  for (;;) {
    info->si_pid = 0;
    int r = real.waitid(type, id, info, options | WNOHANG);
    if (r < 0) return call_fail(&c, errno_get());
    if (info->si_pid != 0) return r;
    int e = type == P_PID && !(options & (WSTOPPED | WCONTINUED)) ? child_park(&c, (pid_t)id) : -1;
    if (e > 0) return call_fail(&c, e);
    if (e == 0) continue;
    call_handoff();
    return real.waitid(type, id, info, options);
  }
}
