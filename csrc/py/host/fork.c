/* fork.c - a forked child starts with a fresh runtime.
 *
 * In the child only the forking thread exists, and the interpreter has freed every other thread state, so
 * all other goroutines are gone: their handles say so, their units are abandoned where they are (the Gs
 * stay in their slabs, never to be used again).  Ms, Ps, queues and the poller start anew at the next
 * use (sched/fork.c).
 *
 * If the forking thread ran a goroutine, that one goes on: it is the child's main goroutine, its ident the
 * main thread's, its signal mask the thread's.  The thread plays the part of the one that waits in run()
 * (lender.c).  If it was the main goroutine of a run(), that run() returns in the child, too.  Another
 * goroutine runs to its end, and the process ends with it, as a script does; one that is a thread to Python, as the
 * process of such a thread does (pythread.c).
 *
 * All this is the first that the interpreter calls in the child, before what others have registered
 * (os.register_at_fork): that is code of the program's, which may yield, wait and start goroutines, and would meet the
 * parent's runtime.  The last of ours drops what the child has no use for: destructors run, and shall find locks that are
 * made anew by handlers of others. */
#include "sched/hibernate.h"
#include "sync/sema.h"
#include "py/cpython/preempt.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/fork.h"
#include "py/host/lender.h"
#include "py/host/pythread.h"
#include "py/host/scope.h"

/* A goroutine of the parent: joining it must not hang.  Its G keeps the handle until drop_parents. */
static void bury(G *gp) {
  Goroutine *self = gp->handle;
  store_rlx(&gp->status, Gidle);
  store_rel(&gp->host, NULL); /* the interpreter has freed it */
  never_roused(gp);
  if (!self) return;
  wait_void(gp); /* what waits in the child's copy of a queue is not to be served */
  self->left = true;
  self->cpu_ticks = 0;
  if (!self->done) {
    self->done = true;
    self->collected = true;
    self->failed = true;
    Py_XSETREF(self->outcome, PyObject_CallFunction(errs.Error, "s", "the goroutine does not exist in the forked child"));
  }
  self->joiners = (waitq){NULL, NULL};
  if (self->more && self->more->group) above.member_lost(self);
}

/* Again where they run code that forks. */
static void drop_parents(void) {
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    Goroutine *self = gp->kind == GK_HOST && load_rlx(&gp->status) == Gidle ? gp->handle : NULL;
    if (!self) continue;
    gp->handle = NULL;
    Py_DECREF(self);
  }
}

static G *forked_g; /* the goroutine that is this process, if nothing follows it */

/* The goroutine that forked has returned in the child: the process ends as a script does. */
static noinline void child_ends(G *gp, PyObject *result) {
  if (handle_of(gp)->pythread) pythread_last();
  tstate_leave_root(ts_of(gp)); /* the interpreter frees what it finds there at its end, from 3.15 on with a look at errors */
  tstate_last(ts_of(gp));
  if (!result) PyErr_Print(); /* SystemExit ends the process here */
  Py_Exit(result ? 0 : 1);
}

void fork_child_end(G *gp, PyObject *result) {
  if (unlikely(gp == forked_g)) child_ends(gp, result);
}

/* In the child, on the thread that forked, which the interpreter knows to be alone. */
void after_fork_child(void) {
  fork_in_child(); /* perhaps inside the C library's fork: see atfork.c */
  bool collects = PyGC_Disable(); /* finalizers are the program's, too */
  M *m = getm();
  G *me = m ? load_rlx(&m->curg) : NULL;
  /* The runtime ran when it was forked.  (Not prepared: a handler of pthread_atfork has started it, in the middle.) */
  if (me || load_rlx(&sched.gcwaiting) || sched_copied()) {
    uint32_t cursor = 0;
    for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
      if (gp != me && gp->kind == GK_HOST && load_rlx(&gp->status) != Gidle) bury(gp);
    }
    if (me && me->handle && has_homes(me->handle)) above.homes_forget(me->handle);
    if (me) atomic_fetch_and(&me->wait, ~WAIT_C); /* a cancel was for the parent's, as pending signals are */
    sched_afterfork(m);
    semroot_afterfork();
    py_preempt_afterfork(m);
    tstate_afterfork();
    pythread_afterfork(me);
    scopes_afterfork(me ? me->handle : NULL);
    if (me && m->host) { /* its base state was freed with the others */
      PyMem_RawFree(m->host);
      m->host = pym_new();
      if (!m->host) fatal("no memory for a thread state in a forked child");
    }
    bool returns = lender_afterfork(me, m);
    forked_g = returns ? NULL : me;
  }
  fork_over();
  if (collects) PyGC_Enable();
}

static PyObject *py_child(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  (void)self;
  after_fork_child();
  Py_RETURN_NONE;
}

static PyObject *py_child_last(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  (void)self;
  drop_parents();
  Py_RETURN_NONE;
}

/* Not through builtins.__import__, which may be anybody's. */
static bool register_at_fork(const char *when, PyObject *fn) {
  PyObject *os = PyImport_ImportModuleLevel("posix", NULL, NULL, NULL, 0);
  PyObject *reg = os ? PyObject_GetAttrString(os, "register_at_fork") : NULL;
  PyObject *none = reg ? PyTuple_New(0) : NULL, *args = none ? PyDict_New() : NULL, *r = NULL;
  if (args && PyDict_SetItemString(args, when, fn) == 0) r = PyObject_Call(reg, none, args);
  Py_XDECREF(r);
  Py_XDECREF(args);
  Py_XDECREF(none);
  Py_XDECREF(reg);
  Py_XDECREF(os);
  return r != NULL;
}

/* os.register_at_fork appends. */
static bool register_first(const char *when, PyObject *fn) {
  PyObject *list = fork_child_list();
  return list ? PyList_Insert(list, 0, fn) == 0 : register_at_fork(when, fn);
}

/* Each once. */
bool fork_handlers_register(void) {
  static PyMethodDef child = {"after_fork_child", py_child, METH_NOARGS, NULL},
                     last = {"drop_parents", py_child_last, METH_NOARGS, NULL};
  static struct {
    bool (*how)(const char *when, PyObject *fn);
    const char *when;
    PyMethodDef *def;
    bool done;
  } all[] = {{register_first, "after_in_child", &child, false},
             {register_at_fork, "after_in_child", &last, false}};
  for (size_t i = 0; i < nelem(all); i++) {
    if (all[i].done) continue;
    PyObject *fn = PyCFunction_New(all[i].def, NULL);
    all[i].done = fn && all[i].how(all[i].when, fn);
    Py_XDECREF(fn);
    if (!all[i].done) return false;
  }
  return true;
}
