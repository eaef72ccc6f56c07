/* fork.c - making processes.
 *
 * What is made inherits the signal mask of the goroutine, not that of the thread which happens to run it.
 *
 * A child of vfork shares our memory until it execs: the hook leaves a mark in the thread (vfork.S), which every
 * hook that would touch the runtime looks at. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "py/host/fork.h"
#include "py/interpose/hooks/hooks.h"

/* Forks by `make`, which returns 0 in the child. */
static pid_t forking(pid_t (*make)(void *), void *arg) {
  if (fork_in_progress() || fork_is_asked()) return make(arg);
  maskscope mask;
  mask_enter(&mask);
  PyThreadState *ts = mask.g ? ts_of(mask.g) : NULL;
  if (ts) ts->gilstate_counter++; /* what handlers let wait here stays on this thread: entered_below */
  fork_asked(true);
  pid_t pid = make(arg);
  fork_asked(false);
  if (ts) ts->gilstate_counter--;
  if (pid == 0) return 0;
  int e = errno_get();
  fork_done(pid > 0 && load_rlx(&sched.started));
  mask_leave(&mask);
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
void hook_vfork_note(void) { vfork_asked(); }
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

/* Since 3.12 the interpreter reads this file to warn of a fork beside threads; ours were quiet, and their locks
 * free.  Told that there is no such file it counts the threads of Python. */
FILE *hook_fopen64(const char *path, const char *mode) {
  if (strcmp(path, "/proc/self/stat") == 0 && fork_just_done()) {
    errno_set(ENOENT);
    return NULL;
  }
  return real.fopen64(path, mode);
}
