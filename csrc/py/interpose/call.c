/* call.c - the frame that all hooks share: call.h says how it is used. */
#include <errno.h>

#include "py/host/fork.h"
#include "py/host/pythread.h"
#include "py/host/scope.h"
#include "py/interpose/homes.h"

G *detached_g_of_m(void) {
  M *m = getm();
  G *gp = load_rlx(&m->curg);
  if (!gp || gp->kind != GK_HOST || attached_here(ts_of(gp)) || in_vfork_child() || fork_in_progress())
    return NULL;
  return gp;
}

/* May a cancel end this call?  Only below a shim of the same family that the running frame has called; what else
 * that depends on is asked when one has come (call_woken). */
static bool cancellable(Goroutine *self, family f) {
  shim *s = self->shim;
  return s && s->family == f && s->frame == ts_position(ts_of(self->g)).frame;
}

/* A file object waits for its own lock: others may leave it anything, until it has that (shim_has_lock). */
static void in_file(shim *s, family f) {
  s->waits |= f == FAM_SEM && s->reader && !s->touched;
  s->touched = true;
}

/* false: not on a goroutine, or one that must not park here; the original is to be called. */
bool call_begin(call *c, family f) {
  G *gp = detached_g();
  if (likely(!gp) || load_rlx(&sched.stopping) || entered_below(gp)) return false;
  Goroutine *self = handle_of(gp);
  if (unlikely(self->alike) && !pythread_may_park(gp)) return false;
  c->g = gp;
  c->home = gp->m;
  c->e = errno_get();
  c->early = f == FAM_FD;
  if (unlikely(homes_of(self) != NULL)) homes_prune(self);
  c->nocancel = !cancellable(self, f);
  if (self->shim && self->shim->family == FAM_NONE) in_file(self->shim, f);
  return true;
}

/* After a park, still attached.  A cancel that must not end this call is put off: WAKE_OK, wait on. */
wake_t call_woken(call *c, wake_t w) {
  if (likely(w != WAKE_CANCELLED)) return w;
  if (!cancel_due(c->g->handle)) return WAKE_OK;
  if (cancel_ends(c->g->handle)) return w;
  c->nocancel = c->g->nocancel = true;
  gocancel(c->g, true);
  return WAKE_OK;
}

/* The goroutine is about to park. */
void call_attach(call *c) {
  xadd(&c->home->homed, 1);
  PyEval_RestoreThread(ts_of(c->g));
  c->g->nocancel = c->nocancel;
}

/* Back below the C code, on whichever thread. */
void call_detach(call *c) {
  G *gp = c->g;
  gp->nocancel = false;
  bool moved = gp->m != c->home;
  if (unlikely(moved && c->early)) homes_note(c, c->home);
  PyEval_SaveThread();
  if (unlikely(moved)) errqueue_clear();
  errno_set(c->e); /* a success must not leave what happened on this thread before */
  xadd(&c->home->homed, (uint32_t)-1);
}

int call_fail(call *c, int e) {
  if (unlikely(e == EINTR || homes_of(handle_of(c->g)))) homes_store(c, e);
  errno_set(e);
  return -1;
}

/* The errno of a wait that was not served.  A cancel makes up one, which the shim will replace. */
int call_errno(call *c, wake_t w) {
  switch (w) {
    case WAKE_INTERRUPTED: return EINTR;
    case WAKE_CANCELLED:
    case WAKE_NOTHREAD:
    case WAKE_DEADLOCK: {
      shim *s = handle_of(c->g)->shim;
      s->substituted = (uint8_t)w;
      return s->family == FAM_SEM ? ETIMEDOUT : ECANCELED;
    }
    default: throw("a blocking call ended with %d", (int)w);
  }
}

void call_handoff(void) {
  M *m = getm();
  if (m && detached_g()) entersyscall_host(m);
}

int64_t timespec_ns(const struct timespec *t) {
  return t->tv_sec > INT64_MAX / 2000000000 ? INT64_MAX / 2 : (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}
