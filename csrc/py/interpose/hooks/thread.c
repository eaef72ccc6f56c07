/* thread.c - making threads.
 *
 * What is made inherits the signal mask of the goroutine, not that of the thread which happens to run it.
 *
 * With threads(True) what the interpreter starts for Python code is a goroutine (host/pythread.c).  Not in another
 * interpreter, not if a larger stack has been asked for than goroutines have, and not when the runtime stops or cannot
 * start: then it is a thread, as ever. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "py/cpython/pythread.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/fork.h"
#include "py/host/identity.h"
#include "py/host/pythread.h"
#include "py/interpose/hooks/hooks.h"

/* In a forked child whose main goroutine has the ident of a thread that is gone, a new thread may be given that one's
 * descriptor, and with it its ident: Python would take the two for one.  Then it only keeps the place, and another one
 * is started.  Which of the two it is, it hears before it does anything. */
typedef struct {
  void *(*fn)(void *);
  void *arg;
  note decided;
} newcomer;

static void *come(void *boxed) {
  newcomer *box = boxed, me;
  notesleep(&box->decided);
  me = *box;
  free(box);
  if (me.fn) return me.fn(me.arg);
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  for (;;) pause();
}

static int create_other(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  bool taken;
  do {
    newcomer *box = calloc(1, sizeof *box);
    int r = box ? real.pthread_create(t, attr, come, box) : EAGAIN;
    if (r) {
      free(box);
      return r;
    }
    taken = identity_taken(*t);
    if (taken) pthread_detach(*t);
    box->fn = taken ? NULL : fn;
    box->arg = arg;
    notewakeup(&box->decided);
  } while (taken);
  return 0;
}

static int create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  maskscope mask;
  mask_enter(&mask);
  int r = (unlikely(identity_in_danger()) ? create_other : real.pthread_create)(t, attr, fn, arg);
  mask_leave(&mask);
  return r;
}

/* ---- threads of Python code, as goroutines ---------------------------------------------------------------------- */

static bool wanted; /* threads(True) */

bool pythreads_wanted(void) { return wanted; }

/* From now on.  false: exception set, nothing has changed. */
bool pythreads_want(bool on) {
  if (on && !interposed.gil) {
    PyErr_Format(errs.Error, "threads cannot be goroutines: interposition is %s", interpose_mode());
    return false;
  }
  if (on && !pythread_learn()) return false;
  wanted = on;
  return true;
}

static bool may_be_goroutine(PyThreadState *ts) {
  return ts && PyThreadState_GetInterpreter(ts) == interp && have_gil() && !load_rlx(&sched.stopping) &&
         !fork_in_progress();
}

int hook_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
  if (unlikely(pythread_probe(fn, arg))) return EAGAIN;
  PyThreadState *ts = unlikely(wanted) ? pythread_state(fn, arg) : NULL;
  if (may_be_goroutine(ts) && pythread_go(t, fn, arg, ts)) return 0;
  return create(t, attr, fn, arg);
}

int hook_pthread_join(pthread_t t, void **result) {
  if (!is_thread_ident(t)) return real.pthread_join(t, result);
  pythread_join(t);
  return 0;
}

/* In a forked child the interpreter detaches its main thread at the end.  The one whose ident that is may be missing
 * there; from 3.15 on the interpreter looks for ever for the end of a thread that could not be detached. */
int hook_pthread_detach(pthread_t t) {
  if (unlikely(identity_taken(t))) return 0;
  if (!is_thread_ident(t)) return real.pthread_detach(t);
  identity_thread_released(t);
  return 0;
}

/* The state of such a thread goes, and with it its data stack: but the first chunk of that lies in the goroutine's slot. */
int hook_munmap(void *at, size_t n) {
  G *gp = curg();
  if (unlikely(gp && gp->kind == GK_HOST && at == gp->stk.hi)) return 0;
  return real.munmap(at, n);
}
