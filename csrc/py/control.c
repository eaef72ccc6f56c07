/* control.c - what the package asks of the runtime as a whole: counters, features, limits, the stop. */
#include "base/clock.h"
#include "sched/hibernate.h"
#include "sched/chaos.h"
#include "sched/netpoll.h"
#include "py/cpython/preempt.h"
#include "py/cpython/selfcheck.h"
#include "py/host/host.h"
#include "py/host/above.h"
#include "py/host/life.h"
#include "py/host/pythread.h"
#include "py/types/args.h"
#include "py/interpose/hooks/hooks.h"
#include "py/module.h"

/* ---- statistics ----------------------------------------------------------------------------------------- */

static int put(PyObject *d, const char *key, uint64_t value) {
  PyObject *v = PyLong_FromUnsignedLongLong(value);
  int r = v ? PyDict_SetItemString(d, key, v) : -1;
  Py_XDECREF(v);
  return r;
}

static void count_states(uint64_t by[8]) {
  uint32_t cursor = 0;
  for (G *gp; (gp = allg_next(&cursor)) != NULL;) {
    uint32_t s = load_acq(&gp->status);
    if (gp->kind == GK_HOST && s == Grunning && ts_of(gp) && !tstate_attached(ts_of(gp))) s = Gsyscall;
    if (s < 8 && gp->kind != GK_FOREIGN) by[s]++;
  }
}

static uint64_t count_timers(void) {
  uint64_t n = (uint64_t)sched.l.timers.len;
  for (int32_t i = 0; i < sched.gomaxprocs; i++) n += (uint64_t)sched.allp[i]->timers.len;
  return n;
}

static void count_ms(uint64_t *parks, uint64_t *ended) {
  *parks = *ended = 0;
  lock(&sched.lock); /* a new one is counted before it is in the table */
  for (uint32_t i = 1; i <= sched.nextmid; i++) {
    *parks += load_rlx(&sched.allm[i]->parks);
    *ended += load_rlx(&sched.allm[i]->ended);
  }
  unlock(&sched.lock);
}

static PyObject *py_stats(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  PyObject *d = PyDict_New();
  if (!d) return NULL;
  uint64_t by[8] = {0}, parks, ended;
  count_ms(&parks, &ended);
  count_states(by);
  const struct {
    const char *key;
    uint64_t value;
  } rows[] = {
      {"goroutines", by[Grunnable] + by[Grunning] + by[Gsyscall] + by[Gwaiting]},
      {"runnable", by[Grunnable]},
      {"running", by[Grunning]},
      {"syscall", by[Gsyscall]},
      {"waiting", by[Gwaiting]},
      {"started", load_rlx(&counts.started)},
      {"ended", ended},
      {"parks", parks},
      {"steals", load_rlx(&counts.steals)},
      {"stolen", load_rlx(&counts.stolen)},
      {"handoffs", load_rlx(&counts.handoffs)},
      {"preemptions", load_rlx(&counts.preemptions)},
      {"wakes", load_rlx(&counts.wakes)},
      {"threads", sched.mcount - sched.nlenders},
      {"threads_idle", sched.nmidle},
      {"threads_started", load_rlx(&counts.mspawned)},
      {"threads_ended", load_rlx(&counts.mreaped)},
      {"procs", (uint64_t)sched.gomaxprocs},
      {"procs_idle", load_rlx(&sched.npidle)},
      {"timers", count_timers()},
      {"hibernating", load_rlx(&hibernating)},
      {"hibernated_bytes", load_rlx(&hibernated_bytes)},
      {"hibernations", load_rlx(&hibernations)},
      {"rousings", load_rlx(&rousings)},
      {"timers_fired", load_rlx(&counts.timers_fired)},
      {"netpoll_waits", load_rlx(&counts.netpolls)},
      {"netpoll_ready", load_rlx(&counts.netready)},
      {"stack_reserved", load_rlx(&stack_reserved)},
      {"stack_slots", load_rlx(&stack_slots)},
      {"stacks_committed", load_rlx(&stacks_committed)},
      {"stacks_emptied", load_rlx(&stacks_emptied)},
      {"stack_shrinks", load_rlx(&stack_shrinks)},
      {"python_threads", pythreads_alive},
      {"stop_the_worlds", load_rlx(&counts.stw)},
      {"foreign_waiting", foreign_waiting(NULL, NULL)}, /* for tests: threads that sleep in waits of ours, for ever */
  };
  for (size_t i = 0; d && i < nelem(rows); i++)
    if (put(d, rows[i].key, rows[i].value) < 0) Py_CLEAR(d);
  return d;
}

static int put_text(PyObject *d, const char *key, PyObject *v) {
  int r = v ? PyDict_SetItemString(d, key, v) : -1;
  Py_XDECREF(v);
  return r;
}

static PyObject *py_features(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  if (!runtime_ensure()) return NULL;
  PyObject *d = PyDict_New();
  if (!d) return NULL;
  if (put_text(d, "built for", PyUnicode_FromString(selfcheck_built_for())) < 0 ||
      put_text(d, "blocking calls", PyUnicode_FromString(interpose_parks() ? "park" : "are handed off")) < 0 ||
      put_text(d, "interposition", PyUnicode_FromString(interpose_mode())) < 0 ||
      put_text(d, "preemption", PyUnicode_FromString(py_preempt_mode())) < 0 ||
      put_text(d, "Python's threads", PyUnicode_FromString(pythreads_wanted() ? "goroutines" : "OS threads")) < 0 ||
      put_text(d, "stack slot", PyUnicode_FromFormat("%zu KiB", stack_host_size() >> 10)) < 0 ||
      put_text(d, "stack guard", PyUnicode_FromString(stack_guard_mode())) < 0 ||
      put_text(d, "poller", PyUnicode_FromString(netpoll_mode())) < 0 ||
      put_text(d, "chaos", PyUnicode_FromString(chaos_on ? "on" : "off")) < 0)
    Py_CLEAR(d);
  return d;
}

static PyObject *py_interposed(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return interpose_report();
}

/* ---- limits --------------------------------------------------------------------------------------------- */

static PyObject *py_set_max_threads(PyObject *module, PyObject *arg) {
  (void)module;
  int64_t n;
  if (!integer_arg("set_max_threads", "n", arg, 2, MAX_MS, &n)) return NULL;
  lock(&sched.lock);
  uint32_t old = sched.maxm;
  sched.maxm = (uint32_t)n;
  unlock(&sched.lock);
  return PyLong_FromUnsignedLong(old);
}

static PyObject *py_set_max_stack(PyObject *module, PyObject *arg) {
  (void)module;
  int64_t n;
  if (!integer_arg("set_max_stack", "nbytes", arg, 256 << 10, 1 << 30, &n)) return NULL;
  if (!runtime_ensure()) return NULL;
  return PyLong_FromSize_t(stack_host_resize((size_t)n));
}

/* ---- threads as goroutines --------------------------------------------------------------------------------- */

/* Changes functions, and starts nothing: that is for the first thread. */
static PyObject *py_threads(PyObject *module, PyObject *arg) {
  (void)module;
  int on = PyObject_IsTrue(arg);
  bool was = pythreads_wanted();
  if (on < 0 || (on && !above.activate()) || !pythreads_want(on)) return NULL;
  return PyBool_FromLong(was);
}

/* ---- SIGQUIT, dumps --------------------------------------------------------------------------------------- */

static PyObject *set_hook(PyObject **hook, PyObject *fn) {
  Py_XSETREF(*hook, Py_NewRef(fn));
  Py_RETURN_NONE;
}
static PyObject *py_set_dumper(PyObject *module, PyObject *fn) {
  (void)module;
  return set_hook(&dump_hook, fn);
}
static PyObject *py_set_deadlock_dump(PyObject *module, PyObject *fn) {
  (void)module;
  return set_hook(&deadlock_hook, fn);
}

/* ---- start and end ---------------------------------------------------------------------------------------- */

static PyObject *py_running(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return PyBool_FromLong(load_rlx(&sched.started) && !load_rlx(&sched.stopping));
}

/* GIL held, and not by m: it runs a daemon that is a goroutine, which keeps the M to its end, as it would a thread. */
static bool has_daemon(M *m) {
  G *gp = load_rlx(&m->curg);
  return gp && gp->kind == GK_HOST && gp->handle && handle_of(gp)->pythread;
}

/* Of another M than m: it runs Python, or makes or frees a thread state. */
static bool any_in_interpreter(M *m) {
  M *driver = load_rlx(&sched.l.holder);
  return (driver && driver != m && !has_daemon(driver)) || host_in_use();
}

/* What was replaced.  But where threads are goroutines the interpreter asks for their idents, and detaches them, to its
 * last breath; and those that are daemons and come back from C code go on, as threads do, each on the thread that it has:
 * nothing parks any more.  Only a goroutine that ends the process is to its thread's calls as if it were none, for the
 * interpreter frees its state before the last of them. */
static void give_back(M *m) {
  if (!pythreads)
    deactivate();
  else if (m)
    setm(NULL);
}

/* No M will touch the interpreter again: those asleep stay so, those that run Python give way here, those that start
 * have their thread state (one that is made later, the interpreter would free with its thread alive), and those that end
 * have freed it.  Daemons that compute do not give way: they are met by the interpreter's end as threads are. */
static PyObject *py_stop(PyObject *module, PyObject *arg) {
  (void)module;
  double s = PyFloat_AsDouble(arg);
  if (s == -1.0 && PyErr_Occurred()) return NULL;
  M *m = getm(); /* not NULL if a goroutine ends the process: then it is not to be waited for */
  bool started = load_rlx(&sched.started);
  /* A goroutine that goes on in a forked child may have started nothing there.  The hooks go all the same: they would
   * ask its thread state, which the interpreter frees before its last calls. */
  if (!started && !m) {
    store_rel(&sched.stopping, true); /* nothing is to start any more, either: nobody would stop it */
    Py_RETURN_NONE;
  }
  if (started) schedstop();
  int64_t end = nanotime() + seconds_to_ns(s);
  while (started && any_in_interpreter(m) && nanotime() < end) {
    Py_BEGIN_ALLOW_THREADS
    os_usleep(200);
    Py_END_ALLOW_THREADS
  }
  give_back(m);
  Py_RETURN_NONE;
}

PyMethodDef control_functions[] = {
    {"stats", py_stats, METH_NOARGS, "stats()\n--\n\nCounters, as a dict."},
    {"features", py_features, METH_NOARGS, "features()\n--\n\nWhat was found on this machine."},
    {"interposed", py_interposed, METH_NOARGS,
     "interposed()\n--\n\n{path: [name, ...]}: C library functions that have a stand-in, and in which objects."},
    {"set_max_threads", py_set_max_threads, METH_O,
     "set_max_threads(n, /)\n--\n\nLimit the OS threads of the runtime; returns the old limit (10000 at first)."},
    {"set_max_stack", py_set_max_stack, METH_O,
     "set_max_stack(nbytes, /)\n--\n\nAddress space of the stacks made from now on; returns the old size."},
    {"threads", py_threads, METH_O,
     "threads(on, /)\n--\n\nWhether threads that Python code starts from now on, in forked children too, are goroutines.\n"
     "Returns what was so before; at first they are not."},
    {"set_dumper", py_set_dumper, METH_O, NULL},
    {"set_deadlock_dump", py_set_deadlock_dump, METH_O, NULL},
    {"install_sigquit", py_install_sigquit, METH_NOARGS, NULL},
    {"running", py_running, METH_NOARGS, NULL},
    {"stop", py_stop, METH_O, NULL},
    {NULL, NULL, 0, NULL}};
