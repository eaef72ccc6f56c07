/* homes.c - errno of a goroutine that has changed its thread below C code.
 *
 * A goroutine may come back from a hook on another thread.  Compilers compute the address of errno once, and C code
 * below that keeps it looks at the errno of a thread where it was before:
 *   - where it called the hook, if it took the address before: to set errno to 0, as is done before calls on
 *     descriptors (_Py_read, select.poll);
 *   - where an earlier call failed, in a loop that calls again after EINTR (os.waitpid).
 * These threads are its homes, remembered until that C code returns.  Only hooks change the thread below C code: Python
 * code that it calls, a signal handler after EINTR, is pinned (host_pinned).
 *
 * A failure is stored at all homes; a success nowhere but here: C code that looks at errno after one has the
 * value that stood there before.  Two goroutines then use one errno, and must not hurt each other.
 *
 *   - What runs on a home thread loses its own errno if ours is stored between its failing call and the look at
 *     it.  So it is stored with the GIL, by which nobody looks at errno meanwhile, and while the thread is in no
 *     call without the GIL.  A call that lasts is not waited for: it would have to fail in just these nanoseconds.
 *     But that a call has begun long ago does not mean that it lasts: its thread may be without a CPU, between
 *     the failure and the look.  So it must be asleep, or have run for a while since (lasts).
 *     While we wait our thread sleeps, or is handed off, but the goroutine does not move once more: the C code
 *     below has taken the address here, perhaps (libpq sets errno to 0 before each recv).
 *     Where no C code takes the address before (locks, whose waits end by time-outs all the time) nothing is
 *     stored.
 *   - Ours is lost if a call fails there before our C code has read it: within nanoseconds in the functions
 *     that keep the address (_Py_read and _Py_write read errno before they take the GIL again).  Attempts of
 *     hooks, which fail all the time, put back what they found (io_wait_hosted), and the runtime's own system calls
 *     leave errno alone.
 *
 * The record is dropped when the shim returns below which it was made, or, without a shim, when the interpreter has
 * gone on.  Threads that are home to somebody do not end (M.homed).
 *
 * Rejected: a virtual errno through __errno_location (calls of the C library itself would not store there),
 * going back to the home thread for each failure (it may be blocked for ever), one home (a loop has more). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "py/interpose/homes.h"

enum {
  HOMES = 8,
  RUNS_NS = 1000000,    /* has run for so long without a failure */
  DEVICE_NS = 10000000, /* waits for a disk, or /proc does not say */
  AT_ONCE_NS = 20000,   /* a short call ends within, if its thread has a CPU */
  PAUSE_US = 50,
};

struct homes {
  position at; /* the instruction that called the C code */
  const shim *below;
  uint32_t n;
  M *m[HOMES];
};

void homes_drop(Goroutine *self) {
  homes *h = self->more->homes;
  self->more->homes = NULL;
  for (uint32_t i = 0; i < h->n; i++) xadd(&h->m[i]->homed, (uint32_t)-1);
  free(h);
}

/* The interpreter may have gone on. */
void homes_prune(Goroutine *self) {
  if (!ts_stands_at(ts_of(self->g), self->more->homes->at)) homes_drop(self);
}

void homes_leave_shim(Goroutine *self, const shim *s) {
  if (self->more->homes->below == s) homes_drop(self);
}

/* In the child of a fork these threads do not exist. */
void homes_forget(Goroutine *self) {
  self->more->homes->n = 0;
  homes_drop(self);
}

/* C code below has taken, or may have taken, the address of errno there.  Attached. */
void homes_note(call *c, M *home) {
  Goroutine *self = handle_of(c->g);
  extras *x = extras_raw(self);
  if (x && !x->homes && (x->homes = malloc(sizeof *x->homes)))
    *x->homes = (homes){.at = ts_position(ts_of(c->g)), .below = self->shim};
  homes *h = x ? x->homes : NULL; /* without memory it may miss its errno */
  for (uint32_t i = 0; h && i < h->n; i++)
    if (h->m[i] == home) return;
  if (!h || h->n == HOMES) return; /* so may who moves that often in one call of C code */
  h->m[h->n++] = home;
  xadd(&home->homed, 1);
}

/* A goroutine on m is in C code without the GIL.  With the GIL held: who is not, cannot get there. */
static bool in_a_call(const M *m) {
  G *gp = load_rlx(&m->curg);
  if (!gp || load_rlx(&m->wants)) return false;
  return gp->kind != GK_HOST || !tstate_attached(ts_of(gp));
}

/* It is in a call that is no short one.  cpu: what the thread had run when we began to look. */
static bool lasts(const M *home, int64_t began, int64_t cpu) {
  switch (os_thread_state(home->tid)) {
    case 'S': return true;
    case 'R': return os_thread_cputime(home->tid) - cpu > RUNS_NS;
    default: return nanotime() - began > DEVICE_NS;
  }
}

/* Without the GIL, and on this thread: the address that C code below has taken in this call is of this one. */
static void pause_thread(call *c, int64_t waited) {
  PyEval_SaveThread();
  os_usleep(waited < AT_ONCE_NS ? 0 : PAUSE_US);
  PyEval_RestoreThread(ts_of(c->g));
}

static void store(call *c, const M *home, int e) {
  int64_t began = nanotime(), cpu = os_thread_cputime(home->tid);
  while (home->errno_at) { /* else it has ended */
    int seen = __atomic_load_n(home->errno_at, __ATOMIC_RELAXED);
    if (in_a_call(home) && !lasts(home, began, cpu))
      pause_thread(c, nanotime() - began);
    else if (__atomic_compare_exchange_n(home->errno_at, &seen, e, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return; /* else a call has failed there since we looked */
  }
}

/* At all homes; the goroutine does not move.  Not attached.  After EINTR the C code may call again, with the address
 * that it takes now. */
void homes_store(call *c, int e) {
  call_attach(c);
  homes *h = homes_of(handle_of(c->g));
  for (uint32_t i = 0; h && i < h->n; i++)
    if (h->m[i] != c->g->m) store(c, h->m[i], e);
  if (e == EINTR) homes_note(c, c->g->m);
  call_detach(c);
}
