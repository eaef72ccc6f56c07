/* lender.c - the main goroutine of run() is the calling thread.
 *
 * lend(fn, ...) makes a goroutine of the calling thread's own PyThreadState: thread-locals, contextvars
 * and ident stay, and on the main thread the interpreter takes it for the main thread wherever it runs.
 * The OS thread, T0, meanwhile waits with a spare state of its own, and
 *   - receives the program's signals: it blocks them all and unblocks them only inside ppoll (and where
 *     lender_expose asks for it), so none is lost between a check and the wait.  Python's C-level handler runs on
 *     T0, whose real ident is the main thread's; then the main goroutine is told: its wait ends with "interrupted"
 *     and runs the handlers, or, if it blocks in a system call, its M gets a signal that makes the call return EINTR.
 *     What the main goroutine sends to its own process is acknowledged: its call returns when T0 has been
 *     through ppoll once more (lender_sync);
 *   - judges "all goroutines are asleep": never a scheduler thread (judge.c);
 *   - is the M of its main goroutine while that is locked to it (lock_os_thread).
 *
 * T0 waits on a small stack of its own and leaves its context, on its real stack, in memory.  A child that the
 * main goroutine forks has no T0, but it has that context: the surviving thread plays T0's part, and when the
 * main goroutine ends it enters the context, so that run() returns in the child as well.  (Not if run() was
 * called on another thread than the process's first: the C library takes such stacks back in a child.)
 *
 * Where goroutines have no identity of their own (GMPRT_INTERPOSE=none) the main goroutine is locked to T0, so that it is
 * the main thread to Python and to C, and gets its signals there.  The runtime's threads do not block signals then: one
 * that comes while T0 does is seen by others, and T0 looks once a second whether that has happened.
 *
 * One eventfd carries all wake-ups; its readers look at the flags. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "py/cpython/follow.h"
#include "py/cpython/frames.h"
#include "py/host/above.h"
#include "py/host/fork.h"
#include "py/host/host.h"
#include "py/host/identity.h"
#include "py/host/lender.h"
#include "py/host/life.h"
#include "py/host/sigmask.h"

enum { WAIT_STACK = 256 << 10 }; /* address space; the judge calls the interpreter on it */

struct lenders lenders = {.lock = {.rank = rank_lenders}};

static _Atomic uint64_t main_takes; /* signals that the main thread receives as a T0; 0: it is none */
static G *spare_main;    /* a dead main goroutine with its big stack, kept for the next run() */
static stack spare_wait; /* a stack to wait on, likewise */
static unsigned long spare_ident; /* of a base state, likewise: there is no end of run()s, but of idents */

/* ---- wake-ups, from any thread --------------------------------------------------------------------------- */

static ownfd *wake_new(void) { return ownfd_new(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

/* Lock held: somebody has closed it behind our back (ownfd.c). */
static void wake_renew(lender *l) {
  ownfd *old = load_rlx(&l->wake), *fresh;
  while (!(fresh = wake_new()))
    if (errno != EBADF) throw("the descriptor that wakes run() was closed, and there is no other: errno %d", errno);
  store_rel(&l->wake, fresh);
  ownfd_free(old);
}

/* Lock held.  T0 may sleep on what is no more: a signal wakes it. */
void poke(lender *l) {
  if (likely(ownfd_post(load_rlx(&l->wake)))) return;
  wake_renew(l);
  ownfd_post(load_rlx(&l->wake));
  os_kick(l->m->tid);
}

void lender_wake(M *m) {
  lock(&lenders.lock);
  for (lender *l = lenders.first; l; l = l->next)
    if (l->m == m) poke(l);
  unlock(&lenders.lock);
}

/* The lander's last act for a main goroutine: its stack is left, its state no longer current. */
void lender_main_left(G *gp) {
  lock(&lenders.lock);
  for (lender *l = lenders.first; l; l = l->next) {
    if (l->g != gp) continue;
    store_rel(&l->ended, true);
    poke(l);
  }
  unlock(&lenders.lock);
}

/* ---- T0's wait ------------------------------------------------------------------------------------------------ */

/* A signal has been received: the main goroutine must run its Python handler. */
static void tell_main(lender *l) {
  G *gp = l->g;
  gointerrupt(gp, false);
  M *m = gp->m;
  if (load_acq(&gp->status) == Grunning && m && m != l->m && load_rlx(&m->curg) == gp &&
      !tstate_attached(ts_of(gp)))
    os_kick(m->tid);
}

static void publish_mask(lender *l, uint64_t bits) {
  store_rel(&l->mask, bits);
  if (l->returns) store_rel(&main_takes, ~bits);
}

static void mask_real(lender *l, bool open, sigset_t *mask) {
  from_bits(mask, open ? load_acq(&l->mask) : ~UINT64_C(0));
}

/* One look through the open window: signals that are pending run their handlers now. */
static int window(lender *l, const struct timespec *t) {
  sigset_t mask;
  mask_real(l, true, &mask);
  struct pollfd p = {.fd = ownfd_number(load_acq(&l->wake)), .events = POLLIN};
  int n = ppoll(&p, 1, t, &mask);
  if (n < 0 && errno == EINTR) tell_main(l);
  if (n > 0 && unlikely(!ownfd_drain(load_acq(&l->wake)))) {
    lock(&lenders.lock);
    if (!ownfd_intact(load_rlx(&l->wake))) wake_renew(l);
    unlock(&lenders.lock);
  }
  return n;
}

static void acknowledge(lender *l) {
  uint32_t asked = load_acq(&l->sync_asked);
  if (asked == load_rlx(&l->sync_done)) return;
  sigset_t mask;
  mask_real(l, load_acq(&l->exposed), &mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  struct timespec now = {0, 0};
  while (window(l, &now) != 0) { /* a poke may have ended it before the signals' turn */
  }
  store_rel(&l->sync_done, asked);
  futexwakeup(&l->sync_done, 1);
}

/* The main goroutine is locked to this thread, and ready: it runs here, with its mask in force. */
static void run_here(lender *l) {
  sigset_t mask;
  mask_real(l, true, &mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  run_wired(l->m);
  sigset_t kept;
  mask_real(l, false, &mask);
  pthread_sigmask(SIG_SETMASK, &mask, &kept);
  if (interposed.nothing) publish_mask(l, to_bits(&kept)); /* nobody has told us of changes */
}

/* In a forked child there is nobody yet who could run what is ready, a main goroutine that is locked to us too.  With the
 * GIL, as whoever starts the runtime: sysmon and the first M run the goroutine as soon as they are there, and it would
 * start the runtime, too. */
static void start_again(lender *l) {
  if (likely(load_acq(&sched.started))) return;
  pym *pm = l->m->host;
  PyEval_RestoreThread(pm->base);
  int error = schedinit() ? 0 : errno;
  PyEval_SaveThread();
  if (error) fatal("the runtime cannot be started in a forked child: %s", strerror(error));
}

static void lender_wait(lender *l) {
  while (!load_acq(&l->ended)) {
    start_again(l);
    acknowledge(l);
    if (load_acq(&l->m->wiredg)) {
      run_here(l);
      continue;
    }
    struct timespec second = {1, 0};
    bool doubt = load_rlx(&asleep_epoch) != 0 && sched_asleep(load_rlx(&asleep_epoch));
    window(l, doubt || interposed.nothing ? &second : NULL);
    if (interposed.nothing && l->returns && signals_tripped()) tell_main(l);
    if (!load_acq(&l->ended)) judge(l);
  }
}

/* On the stack to wait on. */
static void lender_main(void *arg) {
  lender *l = arg;
  lender_wait(l);
  waitstack_switch(&l->m->g0, &l->t0);
}

/* ---- asked by the main goroutine, detached or not ------------------------------------------------------- */

lender *lender_of(G *gp) {
  lender *found = NULL;
  bool held = fork_holds(); /* another library's handler asks, in the middle of a fork */
  if (!held) lock(&lenders.lock);
  for (lender *l = lenders.first; l; l = l->next)
    if (l->g == gp) found = l;
  if (!held) unlock(&lenders.lock);
  return found;
}

static void ask(G *gp, bool expose) {
  lender *l = lender_of(gp);
  if (!l || gp->m == l->m) return; /* on T0 itself: signals come to it directly */
  store_rel(&l->exposed, expose);
  uint32_t ticket = xadd(&l->sync_asked, 1) + 1;
  lock(&lenders.lock);
  poke(l);
  unlock(&lenders.lock);
  PyThreadState *ts = attached_here(ts_of(gp)) ? PyEval_SaveThread() : NULL; /* T0 may be waiting for the GIL: judge */
  for (uint32_t done; (int32_t)((done = load_acq(&l->sync_done)) - ticket) < 0;) futexsleep(&l->sync_done, done, -1);
  if (ts) PyEval_RestoreThread(ts);
}

/* From here to lender_sync T0 blocks nothing that the main goroutine does not.  What it receives outside of ppoll it
 * tells nobody; but the main goroutine runs, and will see to it when it comes back to the interpreter. */
void lender_expose(G *gp) { ask(gp, true); }

/* Returns when T0 has let through what was pending. */
void lender_sync(G *gp) { ask(gp, false); }

/* From a signal handler on any thread: does the main thread lend, and its goroutine not block sig? */
bool lender_takes(int sig) { return load_acq(&main_takes) >> (sig - 1) & 1; }

void lender_set_mask(G *gp, uint64_t bits) {
  lender *l = lender_of(gp);
  if (!l) return;
  publish_mask(l, bits & ~(UINT64_C(1) << (SIGURG - 1)));
  if (gp->m != l->m) {
    lender_sync(gp);
    return;
  }
  sigset_t mask;
  mask_real(l, true, &mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* gp is locked to the thread of m to its end. */
static void stay(G *gp, M *m) {
  if (!gp->lockedm) wire(gp, m);
  gp->locked++;
}

/* ---- lending ---------------------------------------------------------------------------------------------------- */

/* As deep as a thread's stack. */
static G *main_g(void) {
  G *gp = spare_main;
  if (gp) {
    spare_main = NULL;
    return gp;
  }
  struct rlimit rl;
  size_t size = 8 << 20;
  if (getrlimit(RLIMIT_STACK, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY && rl.rlim_cur > size)
    size = rl.rlim_cur < (64 << 20) ? (size_t)rl.rlim_cur : 64 << 20;
  return gmake_big(size);
}

/* One is kept: run() in a loop maps nothing.  Any number may be in run() at once. */
static void main_g_free(G *gp) {
  if (spare_main)
    gfree_big(gp);
  else
    spare_main = gp;
}

static void lender_link(lender *l) {
  lock(&lenders.lock);
  l->next = lenders.first;
  lenders.first = l;
  unlock(&lenders.lock);
}

static void lender_unlink(lender *l) {
  lock(&lenders.lock);
  lender **at = &lenders.first;
  while (*at != l) at = &(*at)->next;
  *at = l->next;
  unlock(&lenders.lock);
}

/* No memory: what has been made so far goes. */
static bool lender_refused(lender *l, pym *pm) {
  if (l->g) main_g_free(l->g);
  if (pm) pym_free(pm);
  if (l->m) lender_m_free(l->m);
  ownfd_free(load_rlx(&l->wake));
  PyErr_NoMemory();
  return false;
}

/* false: exception set, nothing has happened. */
static bool lender_open(lender *l) {
  memset(l, 0, sizeof *l);
  store_rlx(&l->wake, wake_new());
  if (!load_rlx(&l->wake)) {
    PyErr_SetFromErrno(PyExc_OSError);
    return false;
  }
  if (!spare_ident) spare_ident = identity_new();
  unsigned long ident = spare_ident;
  l->m = ident ? lender_m() : NULL;
  pym *pm = l->m ? pym_new() : NULL;
  l->g = pm ? main_g() : NULL;
  if (!l->g) return lender_refused(l, pm);
  l->m->host = pm;
  pm->base->thread_id = ident; /* the thread's own means the state that is lent */
  G *g0 = &l->m->g0;
  g0->stk = spare_wait;
  spare_wait.lo = NULL;
  if (!g0->stk.lo && !stack_alloc_big(WAIT_STACK, &g0->stk)) return lender_refused(l, pm);
  spare_ident = 0;
  tstate_on_stack(pm->base, g0);
  g0->fn = lender_main;
  g0->arg = l;
  goroutine_frame(g0);
  g_init_static(&l->t0, GK_G0);
  return true;
}

/* greenlets: main has had some.  Elsewhere their thread has ended with it.  In a forked child it is this one, and copies
 * what is left of them back to where they were, whenever they are switched to: the stack is theirs for good. */
static void lender_close(lender *l, bool greenlets) {
  stack wait = l->m->g0.stk; /* in a forked child: the thread's own, no slot of ours */
  bool child = !wait.lo;
  if (wait.lo && spare_wait.lo)
    stack_free_big(&wait);
  else if (wait.lo)
    spare_wait = wait;
  pym *pm = l->m->host;
  if (is_goroutine(pm->base->thread_id)) spare_ident = pm->base->thread_id; /* else of a forked child's thread */
  pym_free(pm);
  lender_m_free(l->m);
  if (likely(!child || !greenlets)) main_g_free(l->g);
  ownfd_free(load_rlx(&l->wake));
}

/* The thread gives its state away, waits, and takes it back.  In a forked child another thread may take it
 * back: nothing here but l and ts is known behind the switch. */
static void lend_and_wait(lender *l, PyThreadState *ts) {
  pym *pm = l->m->host;
  sigset_t all, mask;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &mask);
  l->returns = os_gettid() == getpid();
  publish_mask(l, to_bits(&mask));
  lender_link(l);
  setm(l->m);
  tstate_keep_stack(&l->t0);
  follow_leave(&l->t0);
  tstate_on_stack(ts, l->g);
  tstate_unbind(ts); /* whoever attaches it next binds it there */
  PyEval_SaveThread();
  tstate_bind(pm->base); /* what PyGILState_* finds on this thread meanwhile */
  waitstack_switch(&l->t0, &l->m->g0);
  pm = l->m->host;
  if (l->returns) store_rel(&main_takes, 0);
  lender_unlink(l);
  setm(NULL);
  tstate_bind(NULL);
  tstate_on_stack(ts, &l->t0);
  PyEval_RestoreThread(ts); /* does not return if the interpreter has ended, which has freed both states */
  tstate_unbind(pm->base);
  tstate_bind(ts);
  ts->native_thread_id = (unsigned long)os_gettid();
  mask_real(l, true, &mask);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static PyObject *py_lend(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames) {
  (void)module;
  if (nargs < 1 || !PyCallable_Check(args[0])) {
    PyErr_SetString(PyExc_TypeError, "run() needs a callable");
    return NULL;
  }
  if (current_handle()) {
    PyErr_SetString(PyExc_RuntimeError, "lend() in a goroutine");
    return NULL;
  }
  if (!runtime_ensure()) return NULL;
  if (!interposed.nothing) sigquit_install();
  PyThreadState *ts = PyThreadState_Get();
  Goroutine *self = goroutine_new(args, nargs, kwnames);
  if (!self) return NULL;
  lender l;
  if (!lender_open(&l)) {
    PyObject_GC_Track(self);
    Py_DECREF(self);
    return NULL;
  }
  if (ts->thread_id == main_thread_ident()) main_tstate_set(ts);
  store_rel(&l.g->host, ts);
  self->lent = true;
  self->collected = true;
  goroutine_start(self, l.g);
  if (interposed.nothing) stay(l.g, l.m);
  static uint32_t runs;
  self->run = ++runs;
  lend_and_wait(&l, ts);
  lender_close(&l, self->greenlets);
  PyObject *result = PyObject_CallMethod((PyObject *)self, "result", NULL);
  Py_DECREF(self);
  return result;
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

void lenders_forklock(bool on) {
  if (on)
    lock(&lenders.lock);
  else
    unlock(&lenders.lock);
}

/* The part of T0, on g0 of the thread that survived. */
void lender_lend(M *m) {
  lender *l = lenders.first;
  while (l->m != m) l = l->next;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  lender_wait(l);
  follow_enter(&l->t0);
  waitstack_switch(&m->g0, &l->t0);
}

/* In a forked child: the goroutine me goes on, and m's thread, which it runs on, is its T0 from now on. */
bool lender_afterfork(G *me, M *m) {
  static lender child; /* of a goroutine that nobody waits for: the process ends with it */
  Goroutine *self = me ? me->handle : NULL;
  lender *l = lenders.first;
  while (l && l->g != me) l = l->next;
  lock_anew(&lenders.lock); /* a fork need not be prepared: sched/fork.c */
  lenders.first = NULL;
  spare_main = NULL;
  spare_wait.lo = NULL;
  store_rel(&main_takes, 0);
  if (!me) return false;
  bool returns = l && l != &child && (l->returns || l->m == m);
  if (!returns) {
    if (self->lent) frames_cut(ts_of(me), me->stk.lo, me->stk.hi);
    l = &child;
    memset(l, 0, sizeof *l);
    l->g = me;
  }
  store_rlx(&l->wake, wake_new()); /* the old one was shared with the parent: ownfd_afterfork */
  if (!load_rlx(&l->wake)) fatal("no eventfd in a forked child: %s", strerror(errno));
  publish_mask(l, mask_of(me));
  store_rel(&main_takes, ~load_rlx(&l->mask)); /* whoever survives a fork is the main thread */
  store_rlx(&l->exposed, false);
  store_rlx(&l->sync_asked, 0);
  store_rlx(&l->sync_done, 0);
  l->m = m;
  l->next = NULL;
  m->lender = true;
  if (interposed.nothing) {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    publish_mask(l, to_bits(&mask));
    if (!self->lent) stay(me, m);
  }
  self->lent = true;
  lenders.first = l;
  identity_stand_for(ts_of(me)->thread_id);
  main_tstate_set(ts_of(me));
  return returns;
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

PyMethodDef run_functions[] = {
    {"lend", (PyCFunction)(void (*)(void))py_lend, METH_FASTCALL | METH_KEYWORDS,
     "lend(fn, /, *args, **kwargs)\n--\n\nRun fn as the main goroutine, on this thread's state."},
    {"lock_os_thread", py_lock_os_thread, METH_NOARGS,
     "lock_os_thread()\n--\n\nWire the goroutine to its OS thread, in the main goroutine to the one that\n"
     "called run(); nests. TooManyThreads: none would be left for the others. Go's LockOSThread."},
    {"unlock_os_thread", py_unlock_os_thread, METH_NOARGS,
     "unlock_os_thread()\n--\n\nUndo one lock_os_thread()."},
    {NULL, NULL, 0, NULL}};
