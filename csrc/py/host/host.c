/* host.c - the host table: how the runtime reaches CPython.
 *
 * Each M has a base thread state of its own, current while the M is on g0; a parked goroutine's state is
 * never the one that an interpreter call is still using.  The base state is made on the M's thread, so that the
 * interpreter binds it there, and when the thread starts: later, with licence and P in hand, nobody could be told
 * that there is no memory for it. */
#include "py/cpython/follow.h"
#include "py/cpython/lastwords.h"
#include "py/cpython/preempt.h"
#include "py/host/above.h"
#include "py/host/hibernate.h"
#include "py/host/host.h"
#include "py/host/identity.h"
#include "py/host/lender.h"
#include "py/host/life.h"

PyObject *dump_hook, *deadlock_hook;

static bool host_m_init(M *m) { return (m->host = pym_new()) != NULL; }

static void host_attach(M *m) { PyEval_RestoreThread(((pym *)m->host)->base); }

static void host_detach(M *m) {
  (void)m;
  PyEval_SaveThread();
}

static void host_swap(M *m, G *from, G *to) {
  pym *pm = m->host;
  atomic_signal_fence(memory_order_seq_cst); /* the switch is counted: no request arms `from` any more */
  if (unlikely(pm->armed != NULL)) py_preempt_disarm(pm);
  follow_switch(pm, from, to);
  tstate_swap(pm, from ? ts_of(from) : pm->base, to ? ts_of(to) : pm->base);
}

/* A call that waits is below that frame, not only file objects. */
bool in_a_call_of(const shim *s, const void *frame) {
  while (s && s->family == FAM_NONE) s = s->outer;
  if (!s) return false;
  if (s->frame != frame) return true;
  do s = s->outer;
  while (unlikely(s && s->family == FAM_NONE));
  return s != NULL;
}

static bool host_pinned(G *gp) {
  return entered_below(gp) || (unlikely(interposed.binds) && above.thread_bound(gp));
}

static bool host_g_init(G *gp) {
  unsigned long ident = identity_new();
  PyThreadState *ts = ident ? tstate_new(ident) : NULL;
  if (!ts && ident) identity_back(ident);
  store_rel(&gp->host, ts);
  return ts != NULL;
}

static void host_g_fini(G *gp) {
  PyThreadState *ts = ts_of(gp);
  unsigned long ident = ts->thread_id;
  store_rlx(&gp->host, (void *)NULL);
  tstate_delete(ts);
  identity_back(ident);
}

static void host_g_bind(G *gp) {
  tstate_root_chunk(ts_of(gp), gp);
  tstate_on_stack(ts_of(gp), gp);
}

static host_where host_where_is(G *gp) {
  PyThreadState *ts = load_acq(&gp->host); /* from sysmon: see exchange() in sched/g.c */
  if (ts && tstate_attached(ts)) return HOST_INSIDE;
  if (load_rlx(&gp->m->tries)) return HOST_INSIDE; /* as good as */
  if (!interposed.gil) return HOST_UNKNOWN;
  return load_rlx(&gp->m->wants) ? HOST_WANTS : HOST_OUT;
}

/* The M ends (it was idle for long, or what had locked its thread has ended): its base state goes. */
static void host_m_exit(M *m) {
  pym *pm = m->host;
  m->host = NULL;
  PyEval_RestoreThread(pm->base);
  pym_free(pm);
}

static void *host_leave(void) { return PyEval_SaveThread(); }
static void host_enter(void *state) { PyEval_RestoreThread(state); }

static bool host_interruptible(void) { return PyGILState_GetThisThreadState() != NULL; }

/* SIGQUIT, on a thread of its own. */
static void host_dump(void) {
  PyGILState_STATE s = PyGILState_Ensure();
  PyObject *r = dump_hook ? PyObject_CallNoArgs(dump_hook) : NULL;
  if (!r && PyErr_Occurred()) PyErr_WriteUnraisable(dump_hook);
  Py_XDECREF(r);
  PyGILState_Release(s);
}

static void host_last_words(G *gp) {
  PyThreadState *ts = ts_of(gp);
  if (ts) frames_tell(ts);
}

const host_t python_host = {
    .stack_size = TSTATE_STACK,
    .stack_top = 32 << 10, /* first chunk of the data stack: address space, touched as it is used */
    .m_init = host_m_init,
    .attach = host_attach,
    .detach = host_detach,
    .swap = host_swap,
    .pinned = host_pinned,
    .main = goroutine_run,
    .g_init = host_g_init,
    .g_fini = host_g_fini,
    .g_bind = host_g_bind,
    .where = host_where_is,
    .locked = gil_locked,
    .m_exit = host_m_exit,
    .leave = host_leave,
    .enter = host_enter,
    .interruptible = host_interruptible,
    .wake_lender = lender_wake,
    .lend = lender_lend,
    .all_asleep = lender_all_asleep,
    .preempt = py_preempt,
    .preempt_signal = py_preempt_signal,
    .still = host_still,
    .drowsy = host_drowsy,
    .hide = host_hide,
    .show = host_show,
    .last_words = host_last_words,
    .dump = host_dump,
};
