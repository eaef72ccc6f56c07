/* hook_fork.c - making processes and threads.
 *
 * What is made inherits the signal mask of the goroutine, not that of the thread which happens to run it.
 *
 * fork takes the runtime's locks before and lets them go after, so that the child finds every structure whole
 * (fork.c).  This is done by handlers of pthread_atfork, not by the hook around the call: other libraries have such
 * handlers, too, they run inside the C library's fork, and do there what they like (uvloop's runs PyOS_AfterFork_Child).
 * What they do with our locks held and the world stopped may wait for ever.  Handlers that were registered after ours
 * run while nothing is held, before and after.  Those that were there before us run in between; so whoever comes first
 * in the child, our handler or the interpreter's word that it goes on, lets go, and hooks touch nothing meanwhile.
 * (Only what such a handler waits for before the fork must not come from a goroutine.)
 *
 * Where nothing is replaced (GMPRT_INTERPOSE=none, or it is not possible) nobody says that a fork is meant to go on in
 * Python, so each is taken for one.
 *
 * In the child nothing of the runtime is touched, hooks included, until the interpreter
 * says that it goes on there (after_fork_child); most children exec instead.
 *
 * A child of vfork shares our memory until it execs: the hook leaves a mark in the M (vfork.S), which every
 * hook that would touch the runtime looks at. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <unistd.h>

#include "interpose.h"

static _Atomic bool in_child;  /* of a fork, and nobody has said that it goes on */
static _Atomic bool in_parent; /* a fork has just been done: see hook_fopen64 */

/* The fork that this thread is in. */
static __thread struct {
  bool asked;   /* by the hook */
  bool held;    /* our locks are */
  bool started; /* and the world is stopped */
} now __attribute__((tls_model("initial-exec")));

bool interpose_in_fork(void) { return unlikely(load_rlx(&in_child)) || unlikely(now.held); }
bool fork_holds(void) { return now.held; }
void interpose_fork_over(void) {
  store_rlx(&in_child, false);
  store_rlx(&in_parent, false);
}

static bool asked(M *m) {
  if (now.asked) return true;
  if (interpose_sees_gil() || load_rlx(&sched.stopping)) return false;
  G *gp = m ? load_rlx(&m->curg) : NULL;
  return !gp || gp->kind != GK_NATIVE; /* the world would wait for that one */
}

/* A goroutine that goes on in a child of a fork may fork again before anything was started there: it is alone, there is
 * nothing to stop, but its child must begin anew, too. */
static void before_fork(void) {
  M *m = getm();
  now.started = load_rlx(&sched.started); /* perhaps by a handler that ran just before */
  if (!asked(m) || now.held || (!now.started && !(m && load_rlx(&m->curg)))) return;
  if (now.started) sched_fork_prepare();
  lenders_forklock(true);
  now.held = true;
}

static void after_fork_in_parent(void) {
  if (!now.held) return;
  lenders_forklock(false);
  if (now.started) sched_fork_parent();
  now.held = false;
}

/* In the child, as soon as anybody comes to us. */
void fork_in_child(void) {
  if (!now.held) return;
  lenders_forklock(false);
  if (now.started) sched_fork_child();
  store_rlx(&in_child, true);
  now.held = false;
}

/* The earlier, the fewer handlers of others run with our locks held.  false: no memory. */
bool fork_register(void) {
  static bool done;
  if (!done) done = pthread_atfork(before_fork, after_fork_in_parent, fork_in_child) == 0;
  return done;
}

/* Forks by `make`, which returns 0 in the child. */
static pid_t forking(pid_t (*make)(void *), void *arg) {
  if (interpose_in_fork() || now.asked) return make(arg);
  maskscope mask;
  mask_enter(&mask);
  PyThreadState *ts = mask.g ? ts_of(mask.g) : NULL;
  if (ts) ts->gilstate_counter++; /* what handlers let wait here stays on this thread: entered_below */
  now.asked = true;
  pid_t pid = make(arg);
  now.asked = false;
  if (ts) ts->gilstate_counter--;
  if (pid == 0) return 0;
  int e = errno_get();
  store_rlx(&in_parent, pid > 0 && load_rlx(&sched.started));
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
