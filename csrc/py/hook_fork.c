/* hook_fork.c - making processes and threads.
 *
 * What is made inherits the signal mask of the goroutine, not that of the thread which happens to run it.
 *
 * fork takes the runtime's locks before and lets them go after, so that the child finds every structure whole
 * (fork.c).  In the child nothing of the runtime is touched, hooks included, until the interpreter
 * says that it goes on there (after_fork_child); most children exec instead.
 *
 * A child of vfork shares our memory until it execs: the hook leaves a mark in the M (vfork.S), which every
 * hook that would touch the runtime looks at. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include "interpose.h"

static _Atomic bool in_child;  /* of a fork, and nobody has said that it goes on */
static _Atomic bool in_parent; /* a fork has just been done: see hook_fopen64 */

bool interpose_in_fork(void) { return unlikely(load_rlx(&in_child)); }
void interpose_fork_over(void) {
  store_rlx(&in_child, false);
  store_rlx(&in_parent, false);
}

/* Forks by `make`, which returns 0 in the child.  A goroutine that goes on in a child of a fork may fork again
 * before anything was started there: it is alone, there is nothing to stop, but its child must begin anew, too. */
static pid_t forking(pid_t (*make)(void *), void *arg) {
  bool started = load_rlx(&sched.started);
  M *m = getm();
  if ((!started && !(m && load_rlx(&m->curg))) || interpose_in_fork()) return make(arg);
  maskscope mask;
  mask_enter(&mask);
  if (started) sched_fork_prepare();
  lenders_forklock(true);
  pid_t pid = make(arg);
  int e = errno_get();
  lenders_forklock(false);
  if (pid == 0) {
    if (started) sched_fork_child();
    store_rlx(&in_child, true);
  } else {
    if (started) sched_fork_parent();
    store_rlx(&in_parent, pid > 0);
    mask_leave(&mask);
  }
  errno_set(e);
  return pid;
}

static pid_t make_fork(void *arg) {
  (void)arg;
  return real.fork();
}
pid_t hook_fork(void) { return forking(make_fork, NULL); }

typedef struct pty_args {
  int *master;
  char *name;
  const struct termios *termp;
  const struct winsize *winp;
} pty_args;
static pid_t make_forkpty(void *arg) {
  pty_args *a = arg;
  return real.forkpty(a->master, a->name, a->termp, a->winp);
}
pid_t hook_forkpty(int *master, char *name, const struct termios *termp, const struct winsize *winp) {
  pty_args a = {master, name, termp, winp};
  return forking(make_forkpty, &a);
}

/* vfork.S: before the real one. */
void hook_vfork_note(void) {
  M *m = getm();
  if (m && load_rlx(&m->curg)) m->vforked = getpid();
}
void *hook_vfork_real(void) { return (void *)real.vfork; }

int hook_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                     const posix_spawnattr_t *attr, char *const argv[], char *const envp[]) {
  maskscope mask;
  mask_enter(&mask);
  int r = real.posix_spawn(pid, path, actions, attr, argv, envp);
  mask_leave(&mask);
  return r;
}

int hook_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attr, char *const argv[], char *const envp[]) {
  maskscope mask;
  mask_enter(&mask);
  int r = real.posix_spawnp(pid, file, actions, attr, argv, envp);
  mask_leave(&mask);
  return r;
}

int hook_system(const char *command) {
  maskscope mask;
  mask_enter(&mask);
  call_handoff();
  int r = real.system(command);
  mask_leave(&mask);
  return r;
}

FILE *hook_popen(const char *command, const char *mode) {
  maskscope mask;
  mask_enter(&mask);
  FILE *f = real.popen(command, mode);
  mask_leave(&mask);
  return f;
}

int hook_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  maskscope mask;
  mask_enter(&mask);
  int r = real.pthread_create(t, attr, fn, arg);
  mask_leave(&mask);
  return r;
}

/* Since 3.12 the interpreter reads this file to warn of a fork beside threads; ours were quiet, and their locks
 * free.  Told that there is no such file it counts the threads of Python. */
FILE *hook_fopen64(const char *path, const char *mode) {
  if (load_rlx(&in_parent) && strcmp(path, "/proc/self/stat") == 0) {
    store_rlx(&in_parent, false);
    errno_set(ENOENT);
    return NULL;
  }
  return real.fopen64(path, mode);
}
