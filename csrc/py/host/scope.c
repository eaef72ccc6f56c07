/* scope.c - whose cancel it is, and when it is delivered.
 *
 * A goroutine is cancelled as a whole by g.cancel() (`direct`), or within a block: each block that can be cancelled by
 * itself (fail_after, a group's, a context's) is a scope, and so is one that shields.  Scopes stand in a stack,
 * innermost first.  A cancel is *due* if no shield stands between it and the code that runs:
 *
 *     due:   walk outward up to the first shield: scopes that were cancelled, or whose time is up, and have not raised
 *            it; at the end of the walk the direct one.  The outermost is delivered first: it leaves the others anyway
 *
 * The bit C of the wait word (park.c) is only a knock.  It says "look", and who is woken by it asks here, with the GIL:
 * wake_error raises what is due, call_woken ends an interposed call for it; if nothing is due the wait goes on.  So
 * **nothing can be left behind by mistake**: a scope that has been left is not in the stack, whatever its timer does
 * later, and what has not been delivered is in the stack or in `direct`, whoever has swallowed the knock.  One rule
 * keeps it live:
 *
 *     whatever makes a cancel due knocks: who cancels, the timer of a deadline, who leaves a shield, and who delivers
 *     one while another is due
 *
 * Whose Cancelled it is that arrives at the end of a block is told by the exception itself: the object that was raised
 * for the scope.
 *
 * Deadlines.  That of a scope is judged by the clock, with the GIL.  Its bell is a timer in L's heap that knocks
 * without the GIL when it is over.  It may do so late, when the scope has been left and the bell serves another
 * one; `gen` stops most of these, and the rest are knocks for nothing, as the one is that was made for a scope which is
 * left before it waits: the next wait begins once more.  So bells are pooled and never freed, as Gs are.
 *
 * Rejected: N in the wait word for a shield (a block inside of it can be bounded by a time, and a deadlock must still be
 * found); deadlines as part of each park (all parks would pay); one timer per goroutine, set to the earliest
 * deadline (each nesting would move it twice). */
#include "base/clock.h"
#include "sched/sched.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/scope.h"

/* ---- bells ----------------------------------------------------------------------------------------------------- */

typedef struct bell {
  timer t;
  _Atomic(G *) g;        /* whom it knocks at */
  _Atomic uint64_t gen;  /* grows when it is cleared */
  struct bell *pooled;  /* the next one in the pool */
  struct bell *older;   /* of all */
} bell;

static bell *pool, *bells;

/* Without the GIL. */
static void bell_ring(timer *t, uint64_t gen) {
  bell *b = containerof(t, bell, t);
  if (load_acq(&b->gen) == gen) gocancel(load_rlx(&b->g), false);
}

static bell *bell_make(void) {
  bell *b = PyMem_RawCalloc(1, sizeof *b);
  if (!b) return NULL;
  b->t.f = bell_ring;
  b->t.state = TIMER_OUT;
  b->older = bells;
  return bells = b;
}

/* NULL: no memory. */
static bell *bell_set(G *gp, int64_t when) {
  bell *b = pool;
  if (likely(b != NULL))
    pool = b->pooled;
  else if (!(b = bell_make()))
    return NULL;
  store_rlx(&b->g, gp);
  b->t.seq = load_rlx(&b->gen);
  timer_add(&sched.l.timers, &b->t, when);
  return b;
}

static void bell_clear(bell *b) {
  timer_del(&b->t);
  store_rel(&b->gen, load_rlx(&b->gen) + 1);
  b->pooled = pool;
  pool = b;
}

static void bell_off(scope *s) {
  if (!s->bell) return;
  bell_clear(s->bell);
  s->bell = NULL;
}

/* ---- what is due ------------------------------------------------------------------------------------------------ */

static inline scope *innermost(Goroutine *self) { return self->more ? self->more->scopes : NULL; }

static bool fired(const scope *s, int64_t *now) {
  if (s->delivered) return false;
  if (s->cancelled) return true;
  if (!s->deadline) return false;
  if (!*now) *now = nanotime();
  return s->deadline <= *now;
}

/* The scope whose cancel is due; NULL: none's.  *direct: the goroutine's own is, and comes first. */
static scope *scope_due(Goroutine *self, bool *direct) {
  int64_t now = 0;
  scope *found = NULL, *s = innermost(self);
  for (; s && !s->shields; s = s->outer)
    if (fired(s, &now)) found = s;
  *direct = !s && self->direct;
  return found;
}

bool cancel_due(Goroutine *self) {
  bool direct;
  return scope_due(self, &direct) || direct;
}

/* Something may have become due. */
static void knock(Goroutine *self) {
  if (cancel_due(self)) gocancel(self->g, true);
}

/* A knock that would be for nothing is taken back, so the next wait of the running goroutine ends for a cause only.  First
 * taken, then judged: a bell that rings meanwhile has set it anew. */
void knock_settle(Goroutine *self) {
  wake_t r = wait_pending(self->g, true);
  if (r == WAKE_CANCELLED) knock(self);
  if (r == WAKE_INTERRUPTED) gointerrupt(self->g, true);
}

void cancel_direct(Goroutine *self) {
  self->direct = true;
  knock(self);
}

void scope_cancel(scope *s, PyObject *reason) {
  Goroutine *self = s->owner;
  if (!self || s->cancelled) return;
  s->cancelled = true;
  s->reason = Py_XNewRef(reason);
  knock(self);
}

/* ---- delivery --------------------------------------------------------------------------------------------------- */

static PyObject *reason_of(Goroutine *self, scope *s) {
  PyObject *reason = s ? s->reason : self->more ? self->more->reason : NULL;
  if (s && !reason) return PyUnicode_FromString("deadline exceeded");
  return Py_NewRef(reason ? reason : Py_None);
}

/* In the running goroutine, which a knock has woken. */
int cancel_deliver(Goroutine *self) {
  bool direct;
  scope *s = scope_due(self, &direct);
  if (direct) s = NULL;
  if (!s && !direct) return 0;
  PyObject *reason = reason_of(self, s);
  PyObject *exc = reason ? PyObject_CallOneArg(errs.Cancelled, reason) : NULL;
  Py_XDECREF(reason);
  if (!exc) { /* that is raised, and the cancel waits */
    gocancel(self->g, true);
    return -1;
  }
  if (s) {
    s->delivered = true;
    s->exc = Py_NewRef(exc);
    bell_off(s);
  } else {
    self->direct = false;
  }
  if (self->more) self->more->cancels++;
  knock(self);
  PyErr_SetObject(errs.Cancelled, exc);
  Py_DECREF(exc);
  return -1;
}

void cancel_again(Goroutine *self, PyObject *exc) {
  scope *s = innermost(self);
  while (s && s->exc != exc) s = s->outer;
  if (s) {
    s->delivered = false;
    Py_CLEAR(s->exc); /* the caller has it */
  } else {
    self->direct = true;
  }
  knock(self);
}

/* ---- the stack -------------------------------------------------------------------------------------------------- */

/* self runs.  A deadline that is over is due at once. */
int scope_enter(scope *s, Goroutine *self, int64_t deadline) {
  if (s->owner) {
    PyErr_SetString(PyExc_RuntimeError, "this block has been entered already");
    return -1;
  }
  if (!extras_of(self) || (!s->shields && !above.cancel_learn())) return -1;
  bool over = deadline && deadline <= nanotime();
  if (deadline && !over && !(s->bell = bell_set(self->g, deadline))) {
    PyErr_NoMemory();
    return -1;
  }
  s->deadline = deadline;
  s->cancelled = s->delivered = false;
  s->owner = self;
  s->outer = self->more->scopes;
  self->more->scopes = s;
  if (unlikely(over)) knock(self);
  return 0;
}

static void unlink_scope(scope *s) {
  scope **at = &s->owner->more->scopes;
  while (*at != s) at = &(*at)->outer; /* the first one, but where generators hold blocks open */
  *at = s->outer;
  s->outer = NULL;
  s->owner = NULL;
  bell_off(s);
}

/* By whomever: a generator may be closed anywhere. */
bool scope_leave(scope *s, PyObject *exc) {
  Goroutine *self = s->owner;
  if (!self) return false;
  unlink_scope(s);
  bool own = s->exc && s->exc == exc;
  if (s->shields) knock(self);
  scope_clear(s);
  return own;
}

int scope_traverse(scope *s, visitproc visit, void *arg) {
  Py_VISIT(s->reason);
  Py_VISIT(s->exc);
  return 0;
}

/* May run any code. */
void scope_clear(scope *s) {
  Py_CLEAR(s->reason);
  Py_CLEAR(s->exc);
}

void scopes_abandon(Goroutine *self) {
  for (scope *s; (s = innermost(self)) != NULL;) unlink_scope(s);
}

/* In the child no timer is in a heap; me: the goroutine that forked, or NULL.  A cancel that came before was the
 * parent's; deadlines count for both.  Blocks of the others stay in what refers to them (a context, a group), and are
 * nobody's. */
void scopes_afterfork(Goroutine *me) {
  for (bell *b = bells; b; b = b->older) store_rlx(&b->t.state, TIMER_OUT);
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    Goroutine *self = gp->kind == GK_HOST ? gp->handle : NULL;
    if (self && self != me) scopes_end(self);
  }
  if (!me) return;
  me->direct = false;
  for (scope *s = innermost(me); s; s = s->outer)
    if (s->bell) timer_add(&sched.l.timers, &s->bell->t, s->deadline);
}
