/* atfork.c - the handlers of forks: the world stands still, and the runtime is whole in the child.
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
 * says that it goes on there (after_fork_child); most children exec instead. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>

#include "py/host/above.h"
#include "py/host/lender.h"

static _Atomic bool in_child;  /* of a fork, and nobody has said that it goes on */
static _Atomic bool in_parent; /* a fork has just been done */

/* The fork that this thread is in. */
static __thread struct {
  bool asked;   /* by the hook */
  bool held;    /* our locks are */
  bool started; /* and the world is stopped */
  pid_t vforked; /* vfork: who called it */
} now __attribute__((tls_model("initial-exec")));

/* Whatever this thread is, an ordinary one too: its child closes all there is, and sets every signal to its default. */
void vfork_asked(void) { now.vforked = getpid(); }

/* noinline: asked again behind a park, perhaps on another thread. */
noinline bool in_vfork_child(void) {
  if (likely(!now.vforked)) return false;
  if (getpid() != now.vforked) return true;
  now.vforked = 0; /* the child has gone its way */
  return false;
}

bool fork_in_progress(void) { return unlikely(load_rlx(&in_child)) || unlikely(now.held); }
bool fork_holds(void) { return now.held; }
void fork_over(void) {
  store_rlx(&in_child, false);
  store_rlx(&in_parent, false);
}

void fork_asked(bool yes) { now.asked = yes; }
bool fork_is_asked(void) { return now.asked; }
void fork_done(bool parent) { store_rlx(&in_parent, parent); }
bool fork_just_done(void) { return load_rlx(&in_parent) && xchg(&in_parent, false); }

static bool asked(M *m) {
  if (now.asked) return true;
  if (interposed.gil || load_rlx(&sched.stopping)) return false;
  G *gp = m ? load_rlx(&m->curg) : NULL;
  return !gp || gp->kind != GK_NATIVE; /* the world would wait for that one */
}

/* All or nothing: an M that is making its thread state may need what we have, the GIL or the world going on. */
static bool hold(void) {
  if (now.started) sched_fork_prepare();
  lenders_forklock(true);
  now.held = tstate_forklock();
  if (now.held) return true;
  lenders_forklock(false);
  if (now.started) sched_fork_parent();
  return false;
}

/* A goroutine that goes on in a child of a fork may fork again before anything was started there: it is alone, there is
 * nothing to stop, but its child must begin anew, too. */
static void before_fork(void) {
  M *m = getm();
  if (in_vfork_child()) return;
  now.started = load_rlx(&sched.started); /* perhaps by a handler that ran just before */
  if (!asked(m) || now.held || (!now.started && !(m && load_rlx(&m->curg)))) return;
  while (!hold()) tstate_forkwait();
}

static void after_fork_in_parent(void) {
  if (!now.held) return;
  tstate_forkunlock();
  lenders_forklock(false);
  if (now.started) sched_fork_parent();
  now.held = false;
}

/* Where pthread_self() is not ours the interpreter compares the state that goes on with the thread (a debug build
 * dies). */
static void ident_of_thread(void) {
  G *gp = curg();
  if (gp && gp->kind == GK_HOST) ts_of(gp)->thread_id = (unsigned long)pthread_self();
}

/* In the child, as soon as anybody comes to us. */
void fork_in_child(void) {
  now.vforked = 0; /* left over, perhaps */
  if (!now.held) return;
  tstate_forkunlock();
  lenders_forklock(false);
  if (now.started) sched_fork_child();
  if (!interposed.gil) ident_of_thread();
  store_rlx(&in_child, true);
  now.held = false;
}

/* The earlier, the fewer handlers of others run with our locks held.  false: no memory. */
bool fork_register(void) {
  static bool done;
  if (!done) done = pthread_atfork(before_fork, after_fork_in_parent, fork_in_child) == 0;
  return done;
}
