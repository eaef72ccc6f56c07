/* pygoroutine.c - go(), the life of a Python goroutine, and its handle.
 *
 * The handle (Goroutine) holds what was asked for and what came of it; the G holds the stack and the
 * thread state, comes from L's pool, and returns there.  While the goroutine lives its G owns one
 * reference to the handle.
 *
 * The end of a goroutine, on the goroutine itself, its state still current, as at a thread's end: store
 * the result; drop the call; report a failure that nobody can collect; clear the thread state; publish `done`
 * and wake the joiners; call the callbacks; drop the handle.  The unit enters the pool in the lander's commit
 * (park.c), no earlier: another M would start on a stack in use.
 *
 * All of these run code of the program's, destructors too, which may do whatever a goroutine may: park, call what
 * is interposed, start goroutines, ask for current() and current_thread().  So the G has a handle until no code
 * can run any more.  If nobody else holds the handle, what it holds goes before it does (hollow); and what that
 * code leaves in the state, in threading's table or in the handle goes in further turns, as often as POSIX
 * calls the destructors of a thread's data.
 *
 * A failure is never lost: if the handle goes without result or exception having been asked for,
 * its finalizer puts it on a list, and an ordinary goroutine reports it (never the collector itself). */
#include "interpose.h"

PyTypeObject *Goroutine_Type;
PyObject *reporter_hook;
static PyObject *failed; /* list: handles that failed and were dropped */
static bool report_scheduled;
static Goroutine *held; /* handles that failed and live, and nobody has asked: through extras.fnext */

/* For others: while it runs the code of its end it counts as ended. */
G *goroutine_g(Goroutine *self) { return self->done ? NULL : self->g; }

/* Its extras, made when first needed. NULL: exception set. */
extras *extras_raw(Goroutine *self) {
  if (!self->more) self->more = PyMem_RawCalloc(1, sizeof *self->more);
  return self->more;
}
extras *extras_of(Goroutine *self) {
  if (!extras_raw(self)) PyErr_NoMemory();
  return self->more;
}

/* The end of the process goes on meanwhile: a daemon thread ends without a word, as it would anywhere else. */
static void raise_stopped(void) {
  PyObject *fn = helper("_run", "stopped"), *exc = fn ? PyObject_CallNoArgs(fn) : NULL;
  if (exc)
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
  else /* of a destructor at the very end, when nothing can be imported */
    PyErr_SetString(errs.RuntimeNotRunning, "the runtime has been stopped: the interpreter is exiting");
  Py_XDECREF(exc);
  Py_XDECREF(fn);
}

static bool not_stopped(void) {
  if (likely(!load_rlx(&sched.stopping))) return true;
  raise_stopped();
  return false;
}

static noinline bool runtime_start(void) {
  if (!not_stopped() || !activate()) return false;
  if (schedinit()) return true;
  if (errno == EAGAIN)
    PyErr_SetString(errs.TooManyThreads, "can't start a new thread for the runtime");
  else if (errno == ENOMEM)
    PyErr_NoMemory();
  else
    PyErr_SetFromErrno(PyExc_OSError);
  return false;
}

/* Starts the runtime if it does not run. */
bool runtime_ensure(void) { return likely(load_rlx(&sched.started)) ? not_stopped() : runtime_start(); }

/* ---- creation ------------------------------------------------------------------------------------------ */

/* args[0] is the callable. */
Goroutine *goroutine_new(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0, n = nargs - 1 + nkw;
  Goroutine *self = PyObject_GC_New(Goroutine, Goroutine_Type);
  if (!self) return NULL;
  memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
  self->argv = self->few;
  if (n >= (Py_ssize_t)nelem(self->few)) {
    self->argv = PyMem_Malloc((size_t)(n + 1) * sizeof(PyObject *));
    if (!self->argv) {
      self->argv = self->few;
      PyObject_GC_Track(self);
      Py_DECREF(self);
      PyErr_NoMemory();
      return NULL;
    }
    self->argv[0] = NULL;
  }
  self->fn = Py_NewRef(args[0]);
  for (Py_ssize_t i = 0; i < n; i++) self->argv[i + 1] = Py_NewRef(args[i + 1]);
  self->nargs = (uint32_t)n;
  if (nkw) {
    if (!extras_of(self)) {
      PyObject_GC_Track(self);
      Py_DECREF(self);
      return NULL;
    }
    self->more->kwnames = Py_NewRef(kwnames);
  }
  PyThreadState *ts = PyThreadState_Get();
  int instr = 0;
  PyCodeObject *code = caller_position(ts, &instr);
  self->created_by = (PyCodeObject *)Py_XNewRef((PyObject *)code);
  self->created_instr = instr;
  Goroutine *parent = current_handle();
  if (parent) {
    self->parent = parent->id;
    self->run = parent->run;
  }
  if (!mask_inherit(self, parent) || (ts->context && !(self->context = PyContext_CopyCurrent()))) {
    PyObject_GC_Track(self);
    Py_DECREF(self);
    return NULL;
  }
  return self;
}

/* Makes gp, fresh from the pool, the goroutine that self describes, and runnable. */
void goroutine_start(Goroutine *self, G *gp) {
  goid_assign(gp, &sched.l.goidcache, &sched.l.goidcacheend);
  gp->runticks = 0;
  gp->locked = 0;
  gp->handle = Py_NewRef(self);
  store_rlx(&gp->since, cputicks());
  self->id = gp->goid;
  self->g = gp;
  PyObject_GC_Track(self);
  inc_rlx(&counts.started);
  casgstatus(gp, Gdead, Grunnable);
  newproc_host(gp);
}

PyObject *py_go(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  (void)module;
  if (unlikely(nargs < 1)) {
    PyErr_SetString(PyExc_TypeError, "go() needs fn, a callable");
    return NULL;
  }
  if (unlikely(!callable_arg("go", "fn", args[0]))) return NULL;
  if (!runtime_ensure()) return NULL;
  Goroutine *self = goroutine_new(args, nargs, kwnames);
  if (!self) return NULL;
  G *gp = gfget_host();
  if (!gp) {
    PyObject_GC_Track(self);
    Py_DECREF(self);
    return PyErr_NoMemory();
  }
  goroutine_start(self, gp);
  return (PyObject *)self;
}

/* ---- the end --------------------------------------------------------------------------------------------- */

static void drop_call(Goroutine *self) {
  PyObject *fn = self->fn, **argv = self->argv;
  uint32_t n = self->nargs;
  self->fn = NULL;
  self->nargs = 0;
  Py_XDECREF(fn);
  for (uint32_t i = 1; i <= n; i++) Py_CLEAR(argv[i]);
  if (argv != self->few) PyMem_Free(argv);
  self->argv = self->few;
  if (self->more) Py_CLEAR(self->more->kwnames);
}

#ifdef HAVE_CURRENT_EXC_TRIPLE
static PyObject *last_resort; /* a MemoryError */

static PyObject *instance_of(PyObject *type, PyObject *value) {
  if (!value || value == Py_None) return PyObject_CallNoArgs(type);
  if (PyTuple_Check(value)) return PyObject_Call(type, value, NULL);
  return PyObject_CallOneArg(type, value);
}

/* An exception may be a type and what its instance is to be made from.  Without memory PyErr_NormalizeException tries
 * again and again, and aborts: then all share the MemoryError that was made before. */
static void normalize(PyObject **type, PyObject **value, PyObject **tb) {
  if (*value && PyExceptionInstance_Check(*value)) return;
  PyObject *made = instance_of(*type, *value);
  if (!made && !PyErr_ExceptionMatches(PyExc_MemoryError)) { /* that is raised instead */
    Py_XDECREF(*type);
    Py_XDECREF(*value);
    Py_XDECREF(*tb);
    PyErr_Fetch(type, value, tb);
    PyErr_NormalizeException(type, value, tb);
    return;
  }
  PyErr_Clear();
  Py_XSETREF(*value, made ? made : Py_NewRef(last_resort));
}
#endif

/* At import. false: exception set. */
bool outcome_init(void) {
#ifdef HAVE_CURRENT_EXC_TRIPLE
  return last_resort || (last_resort = PyObject_CallNoArgs(PyExc_MemoryError));
#else
  return true; /* the interpreter keeps one */
#endif
}

/* The exception being raised, normalized, with its traceback; the indicator is cleared. */
static PyObject *take_exception(void) {
#ifdef HAVE_CURRENT_EXC_TRIPLE
  PyObject *type, *value, *tb;
  PyErr_Fetch(&type, &value, &tb);
  normalize(&type, &value, &tb);
  if (tb) PyException_SetTraceback(value, tb);
  Py_XDECREF(type);
  Py_XDECREF(tb);
  return value;
#else
  return PyErr_GetRaisedException();
#endif
}

static void store_outcome(Goroutine *self, PyObject *result) {
  if (unlikely(!result)) {
    PyObject *exc = take_exception();
    if (PyErr_GivenExceptionMatches(exc, errs.GoExit)) {
      Py_DECREF(exc);
      result = Py_NewRef(Py_None);
    } else {
      self->failed = true;
      self->cancelled = PyErr_GivenExceptionMatches(exc, errs.Cancelled);
      result = exc;
    }
  }
  self->outcome = result;
}

static bool worth_reporting(Goroutine *self) {
  return self->failed && self->outcome && !self->cancelled && !self->collected && !self->reported && !self->lent &&
         !PyErr_GivenExceptionMatches(self->outcome, PyExc_SystemExit);
}

static void failed_link(Goroutine *self) {
  if (!extras_of(self)) {
    PyErr_Clear(); /* it will be reported if it is dropped, but not if it is kept to the end */
    return;
  }
  self->more->fnext = held;
  if (held) held->more->fprev = self;
  held = self;
}

static void failed_unlink(Goroutine *self) {
  extras *m = self->more;
  if (!m || (held != self && !m->fprev)) return;
  if (m->fprev)
    m->fprev->more->fnext = m->fnext;
  else
    held = m->fnext;
  if (m->fnext) m->fnext->more->fprev = m->fprev;
  m->fprev = m->fnext = NULL;
}

/* Calls the hook for a failure that nobody collects; on an ordinary goroutine or thread. */
static void report(Goroutine *self) {
  self->reported = true;
  failed_unlink(self);
  PyObject *r = reporter_hook ? PyObject_CallOneArg(reporter_hook, (PyObject *)self) : NULL;
  if (!r && PyErr_Occurred()) PyErr_WriteUnraisable((PyObject *)self);
  Py_XDECREF(r);
}

static void run_callbacks(Goroutine *self) {
  PyObject *list = self->more->callbacks;
  self->more->callbacks = NULL;
  for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++) {
    PyObject *r = PyObject_CallOneArg(PyList_GET_ITEM(list, i), (PyObject *)self);
    if (!r) PyErr_WriteUnraisable(PyList_GET_ITEM(list, i));
    Py_XDECREF(r);
  }
  Py_XDECREF(list);
}

static int goroutine_clear(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  Py_CLEAR(self->context);
  Py_CLEAR(self->outcome);
  Py_CLEAR(self->created_by);
  if (self->more) {
    Py_CLEAR(self->more->name);
    Py_CLEAR(self->more->reason);
    Py_CLEAR(self->more->callbacks);
  }
  return 0;
}

/* The last to hold it is the goroutine itself: nobody will ever ask. */
static void report_if_last(Goroutine *self) {
  if (unlikely(self->failed) && Py_REFCNT(self) == 1 && worth_reporting(self)) report(self);
}

static bool unsettled(G *gp, Goroutine *self) {
  return self->threaded || homes_of(self) || (!self->lent && tstate_dirty(ts_of(gp)));
}

/* What a thread's end does away with. */
static void settle(G *gp, Goroutine *self) {
  PyThreadState *ts = ts_of(gp);
  if (unlikely(self->threaded)) {
    self->threaded = false;
    thread_forget(ts->thread_id);
  }
  if (!self->lent) tstate_clear(ts);
  if (unlikely(homes_of(self) != NULL)) homes_drop(self);
}

static void leave(G *gp, Goroutine *self) {
  self->cpu_ticks = (int64_t)(gp->runticks + (cputicks() - load_rlx(&gp->since)));
  self->left = true;
}

static bool holds_something(Goroutine *self) {
  extras *x = self->more;
  return self->outcome || self->context || self->created_by || self->weakrefs ||
         (x && (x->name || x->reason || x->callbacks));
}

/* A goroutine without a result that runs the callbacks of weak references to self. NULL: no memory. */
static Goroutine *stand_in(Goroutine *self) {
  Goroutine *next = PyObject_GC_New(Goroutine, Goroutine_Type);
  if (!next) return NULL;
  memcpy((char *)next + sizeof(PyObject), (char *)self + sizeof(PyObject), sizeof *self - sizeof(PyObject));
  self->more = NULL; /* the signal mask, and what else is the goroutine's, not its handle's */
  next->argv = next->few;
  next->weakrefs = NULL;
  PyObject_GC_Track(next);
  return next;
}

/* The handle goes with its goroutine: what it holds goes now, while that still has it.  true: code may have run. */
static bool hollow(G *gp) {
  Goroutine *self = gp->handle;
  if (Py_REFCNT(self) > 1 || !holds_something(self)) return false;
  goroutine_clear((PyObject *)self);
  if (likely(Py_REFCNT(self) > 1 || !self->weakrefs)) return true;
  Goroutine *next = stand_in(self); /* a weak reference ends with its object, no sooner */
  if (next) {
    gp->handle = next;
    leave(gp, self);
    Py_DECREF(self);
  } else {
    PyErr_Clear();
    Py_INCREF(self); /* better lost than called back in nobody's name */
  }
  return true;
}

enum { TURNS = 4 }; /* PTHREAD_DESTRUCTOR_ITERATIONS */

/* There is always more: it is lost, but the next goroutine on this unit sees nothing of it. */
static void abandon(G *gp) {
  Goroutine *self = gp->handle;
  if (self->threaded) ts_of(gp)->thread_id = identity_new();
  self->threaded = false;
  if (!self->lent) tstate_abandon(ts_of(gp));
  settle(gp, self);
  if (Py_REFCNT(self) == 1 && holds_something(self)) Py_INCREF(self);
}

/* The handle's end, and what the code that it runs leaves behind. */
static void let_go(G *gp) {
  for (int turn = 0;; turn++) {
    Goroutine *self = gp->handle;
    report_if_last(self);
    bool more = hollow(gp);
    self = gp->handle;
    bool rest = unsettled(gp, self);
    if (likely(!more && !rest)) break;
    if (turn == TURNS) {
      abandon(gp);
      break;
    }
    if (rest) settle(gp, self);
  }
}

/* Settles a goroutine that has returned; the caller then leaves its stack for good. */
static void goroutine_finish(G *gp, Goroutine *self, PyObject *result) {
  store_outcome(self, result);
  drop_call(self);
  report_if_last(self);
  if (unlikely(self->failed) && worth_reporting(self)) failed_link(self);
  settle(gp, self);
  self->done = true;
  atomic_fetch_and(&gp->wait, ~(WAIT_C | WAIT_I)); /* a cancel that came too late */
  if (self->joiners.first) waitq_wakeall(&self->joiners);
  if (unlikely(self->more && self->more->callbacks)) run_callbacks(self);
  let_go(gp);
  fork_child_end(gp, Py_None); /* it has forked since it returned */
  self = gp->handle;
  leave(gp, self);
  gp->handle = NULL;
  Py_DECREF(self); /* runs no code */
}

/* host->main: the whole life of a goroutine, on its stack, its state current. */
host_after goroutine_run(G *gp) {
  Goroutine *self = gp->handle;
  PyThreadState *ts = ts_of(gp);
  self->started = true;
  self->gilstate_base = (uint16_t)ts->gilstate_counter;
  if (!self->lent) tstate_fresh_depth(ts, (size_t)(gp->stk.hi - gp->stk.lo));
  if (self->context && !self->lent) {
    ts->context = self->context; /* the handle's reference; kept there too, for .context */
    Py_INCREF(ts->context);
    ts->context_ver++;
    thread_context();
  }
  if (!self->lent) thread_start();
  PyObject *kwnames = self->more ? self->more->kwnames : NULL;
  size_t nkw = kwnames ? (size_t)PyTuple_GET_SIZE(kwnames) : 0;
  size_t n = (self->nargs - nkw) | PY_VECTORCALL_ARGUMENTS_OFFSET;
  PyObject *result = PyObject_Vectorcall(self->fn, self->argv + 1, n, kwnames);
  fork_child_end(gp, result);
  bool lent = self->lent;
  goroutine_finish(gp, self, result);
  return lent ? lender_main_left : NULL;
}

/* ---- failures that nobody collected ------------------------------------------------------------------------ */

static PyObject *take_failed(void) {
  PyObject *list = failed;
  failed = NULL;
  report_scheduled = false;
  return list ? list : PyList_New(0);
}

/* Adds those whose handle was dropped, and that are still to be reported. */
static int add_dropped(PyObject *list, uint32_t run) {
  for (Py_ssize_t i = failed ? PyList_GET_SIZE(failed) : 0; i-- > 0;) {
    PyObject *g = PyList_GET_ITEM(failed, i);
    if (run && ((Goroutine *)g)->run != run) continue;
    if (PyList_Append(list, g) < 0 || PySequence_DelItem(failed, i) < 0) return -1;
  }
  return 0;
}

/* Adds those whose handle lives.  At the end of a run() somebody outside may have been woken to be told, and may
 * not have come to it yet; at the end of the process nobody will. */
static int add_held(PyObject *list, uint32_t run) {
  for (Goroutine *self = held, *next; self; self = next) {
    next = self->more->fnext;
    if (run && (self->run != run || self->asking)) continue;
    if (PyList_Append(list, (PyObject *)self) < 0) return -1;
    failed_unlink(self);
    self->reported = true;
  }
  return 0;
}

/* What nobody has collected of the goroutines of that run(), which ends; 0: of all, for the process ends. */
static PyObject *py_failures(PyObject *module, PyObject *arg) {
  (void)module;
  unsigned long run = PyLong_AsUnsignedLong(arg);
  if (run == (unsigned long)-1 && PyErr_Occurred()) return NULL;
  PyObject *list = PyList_New(0);
  if (list && (add_dropped(list, (uint32_t)run) < 0 || add_held(list, (uint32_t)run) < 0)) Py_CLEAR(list);
  return list;
}

/* (goroutine, n): for aresult(), which waits in its own way. */
static PyObject *py_asking(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  long n = nargs == 2 && Py_TYPE(args[0]) == Goroutine_Type ? PyLong_AsLong(args[1]) : 0;
  if (n != 1 && n != -1) {
    PyErr_SetString(PyExc_TypeError, "asking(goroutine, 1 or -1)");
    return NULL;
  }
  ((Goroutine *)args[0])->asking += (uint32_t)n;
  Py_RETURN_NONE;
}

static PyObject *report_all(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  PyObject *list = take_failed();
  for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(list); i++)
    report((Goroutine *)PyList_GET_ITEM(list, i));
  Py_XDECREF(list);
  Py_RETURN_NONE;
}

static void schedule_report(void) {
  static PyMethodDef def = {"report_failures", report_all, METH_NOARGS, NULL};
  if (report_scheduled || !load_rlx(&sched.started) || load_rlx(&sched.stopping)) return;
  PyObject *fn = PyCFunction_New(&def, NULL);
  PyObject *g = fn ? py_go(NULL, &fn, 1, NULL) : NULL;
  report_scheduled = g != NULL;
  if (!g) PyErr_Clear(); /* reported at the end of run() or of the process */
  Py_XDECREF(g);
  Py_XDECREF(fn);
}

void failures_push(Goroutine *self) {
  if (!failed && !(failed = PyList_New(0))) return PyErr_Clear();
  if (PyList_Append(failed, (PyObject *)self) < 0) return PyErr_Clear();
  schedule_report();
}

static void goroutine_finalize(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  failed_unlink(self);
  if (!self->done || !worth_reporting(self)) return;
  self->reported = true;
#ifdef HAVE_CURRENT_EXC_TRIPLE
  PyObject *type, *value, *tb;
  PyErr_Fetch(&type, &value, &tb);
  failures_push(self);
  PyErr_Restore(type, value, tb);
#else
  PyObject *exc = PyErr_GetRaisedException();
  failures_push(self);
  PyErr_SetRaisedException(exc);
#endif
}

/* ---- the handle ---------------------------------------------------------------------------------------------- */

static int goroutine_traverse(PyObject *op, visitproc visit, void *arg) {
  Goroutine *self = (Goroutine *)op;
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(self->fn);
  for (uint32_t i = 1; i <= self->nargs; i++) Py_VISIT(self->argv[i]);
  Py_VISIT(self->context);
  Py_VISIT(self->outcome);
  if (self->more) {
    Py_VISIT(self->more->reason);
    Py_VISIT(self->more->callbacks);
  }
  return 0;
}

static void goroutine_free(Goroutine *self) {
  PyTypeObject *type = Py_TYPE(self);
  if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
  goroutine_clear((PyObject *)self);
  drop_call(self);
  PyMem_RawFree(self->more);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

/* May it be a link of a chain, each goroutine held by the one before?  Then its end may be a deep recursion. */
static inline bool chained(Goroutine *self) {
  return self->fn || self->context || self->more || (self->outcome && PyType_IS_GC(Py_TYPE(self->outcome)));
}

static void goroutine_dealloc(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  if (PyObject_CallFinalizerFromDealloc(op) < 0) return;
  PyObject_GC_UnTrack(op);
  if (likely(!chained(self))) {
    goroutine_free(self);
    return;
  }
  Py_TRASHCAN_BEGIN(op, goroutine_dealloc)
  goroutine_free(self);
  Py_TRASHCAN_END
}

/* Somebody has been told how it ended. */
static void mark_collected(Goroutine *self) {
  self->collected = true;
  failed_unlink(self);
}

/* 1: it has ended. 0: its time is up. -1: exception set. */
static int wait_for(Goroutine *self, const char *fn, PyObject *timeout) {
  patience p;
  if (patience_parse_strict(fn, timeout, &p) < 0) return -1;
  if (self->done) return 1;
  bool own = current_handle() == self;
  if (own && self->outcome) return 1; /* its own reporter may ask before it is done */
  if (own) {
    PyObject *exc = PyObject_CallFunction(errs.Deadlock, "ss", "", "a goroutine cannot join itself");
    if (exc) PyErr_SetObject(errs.Deadlock, exc);
    Py_XDECREF(exc);
    return -1;
  }
  while (!self->done) {
    if (!p.block) return 0;
    wake_t r = waitq_wait(&self->joiners, waitReasonJoin, p.deadline);
    if (r == WAKE_TIMEOUT && !self->done) return 0;
    if (r != WAKE_OK && r != WAKE_TIMEOUT && wake_error(r) != 0) return -1;
  }
  return 1;
}

static int timeout_arg(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       PyObject **timeout) {
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  *timeout = nargs + nkw > 0 ? args[0] : NULL;
  if (nargs + nkw <= 1 &&
      (nkw == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "timeout") == 0))
    return 0;
  PyErr_Format(PyExc_TypeError, "%s() takes one argument: timeout", name);
  return -1;
}

static PyObject *py_join(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  PyObject *timeout;
  if (timeout_arg("join", args, nargs, kwnames, &timeout) < 0) return NULL;
  int r = wait_for((Goroutine *)op, "join", timeout); /* tells nobody how it ended: a failure is still to be collected */
  return r < 0 ? NULL : PyBool_FromLong(r);
}

/* Waits to be told how it ended, which collects its failure.  0: it has ended. */
static int ask(PyObject *op, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Goroutine *self = (Goroutine *)op;
  PyObject *timeout;
  if (timeout_arg(name, args, nargs, kwnames, &timeout) < 0) return -1;
  self->asking++;
  int r = wait_for(self, name, timeout);
  self->asking--;
  if (r == 1) mark_collected(self);
  if (r == 0) PyErr_SetString(errs.Timeout, "timed out");
  return r == 1 ? 0 : -1;
}

/* Who finds a handle by current() in a destructor of what it held, or of a garbage cycle, comes too late. */
static bool has_outcome(Goroutine *self) {
  if (likely(self->outcome != NULL)) return true;
  PyErr_SetString(PyExc_RuntimeError, "the result has been dropped, for nobody held the goroutine's handle");
  return false;
}

static PyObject *cancelled_error(Goroutine *self) {
  PyObject *reason = PyObject_GetAttrString(self->outcome, "reason");
  PyObject *e = reason ? PyObject_CallOneArg(errs.GoroutineCancelled, reason) : NULL;
  Py_XDECREF(reason);
  if (e) PyException_SetCause(e, Py_NewRef(self->outcome));
  return e;
}

static PyObject *py_result(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Goroutine *self = (Goroutine *)op;
  if (ask(op, "result", args, nargs, kwnames) < 0 || !has_outcome(self)) return NULL;
  if (likely(!self->failed)) return Py_NewRef(self->outcome);
  PyObject *exc = self->cancelled ? cancelled_error(self) : Py_NewRef(self->outcome);
  if (exc) PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
  Py_XDECREF(exc);
  return NULL;
}

static PyObject *py_exception(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames) {
  Goroutine *self = (Goroutine *)op;
  if (ask(op, "exception", args, nargs, kwnames) < 0 || !has_outcome(self)) return NULL;
  if (self->cancelled) return cancelled_error(self);
  return Py_NewRef(self->failed ? self->outcome : Py_None);
}

static PyObject *py_cancel(PyObject *op, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"reason", NULL};
  PyObject *reason = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &reason)) return NULL;
  Goroutine *self = (Goroutine *)op;
  if (!cancel_learn()) return NULL; /* runs Python code, in which it may end */
  if (self->done) Py_RETURN_FALSE;
  if (reason != Py_None || self->more) {
    if (!extras_of(self)) return NULL;
    Py_XSETREF(self->more->reason, Py_NewRef(reason));
  }
  if (!self->done) gocancel(self->g, true); /* the old reason's destructor may have run anything */
  Py_RETURN_TRUE;
}

static PyObject *py_detach(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  ((Goroutine *)op)->detached = true;
  Py_RETURN_NONE;
}
static PyObject *py_done(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(((Goroutine *)op)->done);
}
static PyObject *py_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(((Goroutine *)op)->cancelled);
}

static PyObject *py_add_done_callback(PyObject *op, PyObject *fn) {
  Goroutine *self = (Goroutine *)op;
  if (!callable_arg("add_done_callback", "fn", fn)) return NULL;
  extras *more = extras_of(self);
  if (!more) return NULL;
  if (!more->callbacks) { /* the collector may run here, and let the goroutine end: `done` is read after it */
    PyObject *list = PyList_New(0);
    if (!list) return NULL;
    if (more->callbacks)
      Py_DECREF(list);
    else
      more->callbacks = list;
  }
  if (!self->done) return PyList_Append(more->callbacks, fn) < 0 ? NULL : Py_NewRef(Py_None);
  PyObject *r = PyObject_CallOneArg(fn, op);
  if (!r) PyErr_WriteUnraisable(fn);
  Py_XDECREF(r);
  Py_RETURN_NONE;
}

/* Innermost Python frame, also of a parked goroutine. */
static PyObject *py_frame(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Goroutine *self = (Goroutine *)op;
  PyFrameObject *f = !self->left && self->started ? PyThreadState_GetFrame(ts_of(self->g)) : NULL;
  return f ? (PyObject *)f : Py_NewRef(Py_None);
}

static PyObject *py_creation(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Goroutine *self = (Goroutine *)op;
  if (!self->created_by) Py_RETURN_NONE;
  int line = PyCode_Addr2Line(self->created_by, self->created_instr);
  return Py_BuildValue("(Oi)", self->created_by, line);
}

static PyObject *call_helper(PyObject *op, const char *name) {
  PyObject *fn = helper("_goroutine", name);
  PyObject *r = fn ? PyObject_CallOneArg(fn, op) : NULL;
  Py_XDECREF(fn);
  return r;
}
static PyObject *py_stack(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return call_helper(op, "stack");
}
static PyObject *py_aresult(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  return call_helper(op, "aresult");
}
static PyObject *get_created_by(PyObject *op, void *Py_UNUSED(c)) {
  return call_helper(op, "created_by");
}

static const char *state_name(Goroutine *self) {
  if (self->done) return "dead";
  uint32_t s = self->deadlocked ? Gwaiting : load_acq(&self->g->status);
  if (s == Grunning && !tstate_attached(ts_of(self->g))) s = Gsyscall;
  return gstatus_name(s);
}
static PyObject *get_state(PyObject *op, void *Py_UNUSED(c)) {
  return PyUnicode_FromString(state_name((Goroutine *)op));
}
static PyObject *get_wait_reason(PyObject *op, void *Py_UNUSED(c)) {
  Goroutine *self = (Goroutine *)op;
  G *gp = goroutine_g(self);
  bool waits = gp && (self->deadlocked || load_acq(&gp->status) == Gwaiting);
  return PyUnicode_FromString(waits ? waitreason_name(load_rlx(&gp->reason)) : "");
}
static PyObject *get_since(PyObject *op, void *Py_UNUSED(c)) {
  G *gp = goroutine_g((Goroutine *)op);
  return PyFloat_FromDouble(gp ? (double)ticks_to_ns(cputicks() - load_rlx(&gp->since)) * 1e-9 : 0.0);
}
static PyObject *get_cpu_time(PyObject *op, void *Py_UNUSED(c)) {
  Goroutine *self = (Goroutine *)op;
  if (self->left) return PyFloat_FromDouble((double)ticks_to_ns((uint64_t)self->cpu_ticks) * 1e-9);
  uint64_t ticks = self->g->runticks;
  if (load_acq(&self->g->status) == Grunning) ticks += cputicks() - load_rlx(&self->g->since);
  return PyFloat_FromDouble((double)ticks_to_ns(ticks) * 1e-9);
}
static PyObject *get_id(PyObject *op, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLongLong(((Goroutine *)op)->id);
}
static PyObject *get_parent(PyObject *op, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLongLong(((Goroutine *)op)->parent);
}
static PyObject *get_run(PyObject *op, void *Py_UNUSED(c)) {
  return PyLong_FromUnsignedLong(((Goroutine *)op)->run);
}
static PyObject *get_is_main(PyObject *op, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((Goroutine *)op)->lent);
}
static PyObject *get_ident(PyObject *op, void *Py_UNUSED(c)) {
  G *gp = goroutine_g((Goroutine *)op);
  bool runs = gp && ((Goroutine *)op)->started; /* before, it has no stack and no state to keep */
  return PyLong_FromUnsignedLong(runs ? ts_of(gp)->thread_id : 0);
}
static PyObject *get_detached(PyObject *op, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((Goroutine *)op)->detached);
}
static PyObject *get_locked(PyObject *op, void *Py_UNUSED(c)) {
  G *gp = goroutine_g((Goroutine *)op);
  return PyBool_FromLong(gp && gp->lockedm);
}
static PyObject *get_reason(PyObject *op, void *Py_UNUSED(c)) {
  extras *more = ((Goroutine *)op)->more;
  return Py_NewRef(more && more->reason ? more->reason : Py_None);
}
static PyObject *get_function(PyObject *op, void *Py_UNUSED(c)) {
  PyObject *fn = ((Goroutine *)op)->fn;
  return Py_NewRef(fn ? fn : Py_None);
}
static PyObject *get_context(PyObject *op, void *Py_UNUSED(c)) {
  PyObject *ctx = ((Goroutine *)op)->context;
  return Py_NewRef(ctx ? ctx : Py_None);
}

static PyObject *get_gname(PyObject *op, void *Py_UNUSED(c)) {
  Goroutine *self = (Goroutine *)op;
  if (self->more && self->more->name) return Py_NewRef(self->more->name);
  return PyUnicode_FromFormat("goroutine-%llu", (unsigned long long)self->id);
}
static int set_gname(PyObject *op, PyObject *value, void *Py_UNUSED(c)) {
  if (!value || !PyUnicode_Check(value)) {
    PyErr_SetString(PyExc_TypeError, "name must be a str");
    return -1;
  }
  extras *more = extras_of((Goroutine *)op);
  if (!more) return -1;
  Py_XSETREF(more->name, Py_NewRef(value));
  return 0;
}

static PyObject *goroutine_repr(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  if (self->more && self->more->name)
    return PyUnicode_FromFormat("<gmprt.Goroutine %llu %R %s>", (unsigned long long)self->id,
                                self->more->name, state_name(self));
  return PyUnicode_FromFormat("<gmprt.Goroutine %llu %s>", (unsigned long long)self->id,
                              state_name(self));
}

#define KW (METH_FASTCALL | METH_KEYWORDS)
#define FN(f) ((PyCFunction)(void (*)(void))(f))
static PyMethodDef goroutine_methods[] = {
    {"join", FN(py_join), KW,
     "join($self, timeout=None)\n--\n\nWait until it has ended. False if timeout (seconds) passed first. Never\n"
     "raises its error, which is still to be collected. Joining oneself raises Deadlock."},
    {"result", FN(py_result), KW,
     "result($self, timeout=None)\n--\n\nWait, then return its result or raise its exception;\n"
     "GoroutineCancelled if it was cancelled, Timeout after timeout seconds."},
    {"exception", FN(py_exception), KW,
     "exception($self, timeout=None)\n--\n\nWait, then return its exception, or None."},
    {"cancel", FN(py_cancel), METH_VARARGS | METH_KEYWORDS,
     "cancel($self, reason=None)\n--\n\nIts current or next wait raises Cancelled, once. False: it has ended."},
    {"detach", py_detach, METH_NOARGS,
     "detach($self, /)\n--\n\nrun() neither cancels it nor waits for it when its main function ends."},
    {"done", py_done, METH_NOARGS, "done($self, /)\n--\n\nWhether it has ended."},
    {"cancelled", py_cancelled, METH_NOARGS, "cancelled($self, /)\n--\n\nWhether it ended by a cancel."},
    {"add_done_callback", py_add_done_callback, METH_O,
     "add_done_callback($self, fn, /)\n--\n\nfn(goroutine) runs in the goroutine when it has ended; at once if it has."},
    {"frame", py_frame, METH_NOARGS, "frame($self, /)\n--\n\nIts innermost Python frame, or None."},
    {"creation", py_creation, METH_NOARGS, "creation($self, /)\n--\n\n(code, line) of the go() call, or None."},
    {"stack", py_stack, METH_NOARGS,
     "stack($self, /)\n--\n\nIts stack as a traceback.StackSummary, also while it is parked."},
    {"aresult", py_aresult, METH_NOARGS,
     "aresult($self, /)\n--\n\nAwaitable result, for asyncio. Cancelling the waiting task leaves it alone."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Goroutine[R] for type checkers."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef goroutine_getset[] = {
    {"id", get_id, NULL, "number, never used again", NULL},
    {"name", get_gname, set_gname, "name, settable", NULL},
    {"state", get_state, NULL, "runnable, running, syscall, waiting or dead", NULL},
    {"wait_reason", get_wait_reason, NULL, "why it waits, in Go's words; empty if it does not", NULL},
    {"since", get_since, NULL, "seconds since it was last switched in or out", NULL},
    {"cpu_time", get_cpu_time, NULL, "seconds it has run, calls that block an OS thread included", NULL},
    {"context", get_context, NULL, "its contextvars.Context, None: empty", NULL},
    {"parent_id", get_parent, NULL, "id of the goroutine that called go(), 0: a thread", NULL},
    {"run_id", get_run, NULL, "number of the run() that it descends from, 0: none", NULL},
    {"is_main", get_is_main, NULL, "whether it is the main goroutine of a run()", NULL},
    {"ident", get_ident, NULL, "threading.get_ident() inside it, 0 when dead", NULL},
    {"detached", get_detached, NULL, "whether detach() was called", NULL},
    {"locked_to_thread", get_locked, NULL, "whether it is locked to an OS thread", NULL},
    {"reason", get_reason, NULL, "reason of the last cancel(), or None", NULL},
    {"function", get_function, NULL, "what it runs, None when it has returned", NULL},
    {"created_by", get_created_by, NULL, "where go() was called", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static PyMemberDef goroutine_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Goroutine, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};
static PyType_Slot goroutine_slots[] = {{Py_tp_doc, "A goroutine's handle, returned by go()."},
                                        {Py_tp_dealloc, goroutine_dealloc},
                                        {Py_tp_traverse, goroutine_traverse},
                                        {Py_tp_clear, goroutine_clear},
                                        {Py_tp_finalize, goroutine_finalize},
                                        {Py_tp_methods, goroutine_methods},
                                        {Py_tp_getset, goroutine_getset},
                                        {Py_tp_members, goroutine_members},
                                        {Py_tp_repr, goroutine_repr},
                                        {0, NULL}};
PyType_Spec goroutine_spec = {"gmprt.Goroutine", sizeof(Goroutine), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                  Py_TPFLAGS_DISALLOW_INSTANTIATION,
                              goroutine_slots};

/* ---- functions ------------------------------------------------------------------------------------------------ */

static bool on_goroutine(void) {
  M *m = getm();
  return m && load_rlx(&m->curg);
}

static PyObject *py_current(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  Goroutine *self = current_handle();
  return Py_NewRef(self ? (PyObject *)self : Py_None);
}

/* Yields.  A cancel is not delivered here: gosched() is no wait. */
static PyObject *py_gosched(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  if (likely(on_goroutine())) {
    gosched();
  } else {
    Py_BEGIN_ALLOW_THREADS
    os_usleep(0);
    Py_END_ALLOW_THREADS
  }
  Py_RETURN_NONE;
}

static PyObject *py_goexit(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  if (!on_goroutine())
    PyErr_SetString(PyExc_RuntimeError, "goexit() outside a goroutine");
  else
    PyErr_SetNone(errs.GoExit);
  return NULL;
}

/* (name of a function, its argument `seconds`): as a float; NaN is refused. */
static PyObject *py_seconds(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  const char *fn = nargs == 2 ? PyUnicode_AsUTF8(args[0]) : NULL;
  double s;
  if (!fn || !seconds_arg(fn, "seconds", args[1], "", &s)) return NULL;
  if (s == s) return PyFloat_FromDouble(s);
  PyErr_Format(PyExc_ValueError, "%s(): seconds must not be NaN", fn);
  return NULL;
}

static PyObject *py_sleep(PyObject *module, PyObject *arg) {
  (void)module;
  double s;
  if (!seconds_arg("sleep", "seconds", arg, "", &s)) return NULL;
  if (s != s || s < 0) {
    PyErr_Format(PyExc_ValueError, "sleep(): seconds must not be %s", s < 0 ? "negative" : "NaN");
    return NULL;
  }
  if (s == 0) return py_gosched(NULL, NULL);
  int64_t deadline = deadline_after(s);
  G *gp = getg(true);
  if (!gp) return PyErr_NoMemory();
  for (;;) {
    wake_t r = park_any(gp, NULL, NULL, waitReasonSleep, deadline, true);
    if (r == WAKE_TIMEOUT) Py_RETURN_NONE;
    if (wake_error(r) != 0) return NULL;
  }
}

static int by_id(const void *a, const void *b) {
  uint64_t x = (*(Goroutine *const *)a)->id, y = (*(Goroutine *const *)b)->id;
  return (x > y) - (x < y);
}

static PyObject *py_goroutines(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  PyObject *list = PyList_New(0);
  uint32_t cursor = 0;
  for (G *gp; list && (gp = allg_next(&cursor)) != NULL;) {
    Goroutine *self = gp->kind == GK_HOST ? gp->handle : NULL;
    if (self && !self->done && PyList_Append(list, (PyObject *)self) < 0) Py_CLEAR(list);
  }
  if (list && PyList_GET_SIZE(list) > 1) {
    PyObject **items = ((PyListObject *)list)->ob_item;
    qsort(items, (size_t)PyList_GET_SIZE(list), sizeof *items, by_id);
  }
  return list;
}

static PyObject *py_num_goroutine(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  Py_ssize_t n = 0;
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    uint32_t s = load_acq(&gp->status);
    n += gp->kind != GK_FOREIGN && s != Gdead && s != Gidle;
  }
  return PyLong_FromSsize_t(n);
}

static PyObject *py_gomaxprocs(PyObject *module, PyObject *args, PyObject *kwargs) {
  (void)module;
  static char *names[] = {"n", NULL};
  PyObject *number = Py_None;
  int64_t n = 0;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:gomaxprocs", names, &number)) return NULL;
  if (number != Py_None && !integer_arg("gomaxprocs", "n", number, 1, MAX_PROCS, &n)) return NULL;
  if (!runtime_ensure()) return NULL;
  int32_t old;
  Py_BEGIN_ALLOW_THREADS /* nobody waits for the world with the GIL in hand */
  old = gomaxprocs_set((int32_t)n);
  Py_END_ALLOW_THREADS
  return old < 0 ? PyErr_NoMemory() : PyLong_FromLong(old);
}

static PyObject *py_set_reporter(PyObject *module, PyObject *fn) {
  (void)module;
  Py_XSETREF(reporter_hook, Py_NewRef(fn));
  Py_RETURN_NONE;
}

PyMethodDef goroutine_functions[] = {
    {"go", FN(py_go), KW,
     "go(fn, /, *args, **kwargs)\n--\n\nStart a goroutine that runs fn(*args, **kwargs); returns its handle.\n"
     "It is runnable, not running, and has a copy of the caller's context. From any thread."},
    {"current", py_current, METH_NOARGS,
     "current()\n--\n\nThe running goroutine, or None in an ordinary thread."},
    {"gosched", py_gosched, METH_NOARGS, "gosched()\n--\n\nLet other goroutines run. Go's Gosched."},
    {"goexit", py_goexit, METH_NOARGS,
     "goexit()\n--\n\nEnd the running goroutine, running its finally blocks. Go's Goexit."},
    {"sleep", py_sleep, METH_O,
     "sleep(seconds, /)\n--\n\nPark for that long; 0 yields. An ordinary thread blocks, without the GIL."},
    {"seconds", FN(py_seconds), METH_FASTCALL, NULL},
    {"goroutines", py_goroutines, METH_NOARGS, "goroutines()\n--\n\nAll that live, by id."},
    {"num_goroutine", py_num_goroutine, METH_NOARGS,
     "num_goroutine()\n--\n\nHow many live, native ones included."},
    {"gomaxprocs", FN(py_gomaxprocs), METH_VARARGS | METH_KEYWORDS,
     "gomaxprocs(n=None)\n--\n\nReturns the number of Ps, and changes it to n. Waits until the world has stopped.\n"
     "ValueError: not 1 to 256. MemoryError: the number is what it was."},
    {"failures", py_failures, METH_O, NULL},
    {"asking", FN(py_asking), METH_FASTCALL, NULL},
    {"set_reporter", py_set_reporter, METH_O, NULL},
    {NULL, NULL, 0, NULL}};
