/* identity.c - pthread_self() and its like: who runs, as host/identity.c has it.
 *
 * In the interpreter pthread_self() answers with the goroutine's ident.  The other pthread_*() functions that Python
 * offers to its users translate: to the thread that runs the goroutine now. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "py/host/identity.h"
#include "py/host/lender.h"
#include "py/interpose/hooks/hooks.h"

static G *running_g(void) {
  G *gp = curg();
  return gp && gp->kind == GK_HOST ? gp : NULL;
}

pthread_t hook_pthread_self(void) {
  G *gp = running_g();
  if (gp) {
    Goroutine *self = gp->handle;
    bool alike = self && unlikely(self->alike); /* asked to be put into a state, and when that is gone (pythread.c) */
    return (pthread_t)(alike ? self->thread.ident : ts_of(gp)->thread_id);
  }
  unsigned long other = identity_stood_for();
  return unlikely(other) ? (pthread_t)other : real.pthread_self();
}

/* The thread that runs it now; false: none does. */
static bool thread_of(pthread_t t, pthread_t *out) {
  G *gp = goroutine_of(t);
  M *m = gp && load_acq(&gp->status) == Grunning ? gp->m : NULL;
  if (m) *out = m->thread;
  return m != NULL;
}

int hook_pthread_getcpuclockid(pthread_t t, clockid_t *clock) {
  if (is_goroutine(t) && !thread_of(t, &t)) return ESRCH;
  return real.pthread_getcpuclockid(t, clock);
}

/* The names of threads, which the interpreter sets from 3.14 on.  The system shows those of threads that are ones: these
 * run others next, and keep their own.  A goroutine is told what it has called itself, and asks for nobody else. */
static G *names_itself(pthread_t t) {
  G *gp = running_g();
  return gp && t == hook_pthread_self() ? gp : NULL;
}

int hook_pthread_getname_np(pthread_t t, char *name, size_t n) {
  G *gp = is_goroutine(t) ? names_itself(t) : NULL;
  const char *own = gp && handle_of(gp)->more ? handle_of(gp)->more->osname : "";
  if (!*own) return is_goroutine(t) && !thread_of(t, &t) ? ESRCH : real.pthread_getname_np(t, name, n);
  if (strlen(own) >= n) return ERANGE;
  strcpy(name, own);
  return 0;
}

int hook_pthread_setname_np(pthread_t t, const char *name) {
  if (!is_goroutine(t)) return real.pthread_setname_np(t, name);
  if (strlen(name) >= sizeof((extras *)NULL)->osname) return ERANGE;
  G *gp = names_itself(t);
  if (!gp) return 0;
  extras *more = extras_raw(handle_of(gp));
  if (!more) return ENOMEM;
  strcpy(more->osname, name);
  return 0;
}

/* Its stack is the goroutine's own, not the thread's: the interpreter asks from 3.14 on. */
int hook_pthread_getattr_np(pthread_t t, pthread_attr_t *attr) {
  G *gp = running_g();
  if (!gp || (pthread_t)ts_of(gp)->thread_id != t) {
    if (!is_goroutine(t)) return real.pthread_getattr_np(t, attr);
    if (!(gp = goroutine_of(t))) return ESRCH;
  }
  int e = pthread_attr_init(attr);
  if (e == 0) e = pthread_attr_setguardsize(attr, 0);
  if (e == 0) e = pthread_attr_setstack(attr, gp->stk.lo, (size_t)(gp->stk.hi - gp->stk.lo));
  return e;
}

/* gettid: the main goroutine's is that of the thread which lends its state, so that it equals the pid. */
long hook_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (number == SYS_gettid) {
    G *gp = running_g();
    pid_t tid = gp ? lent_tid(gp) : 0;
    if (tid) return tid;
  }
  return hook_signal_syscall(number, a, b, c, d, e, f);
}
