/* module.c - the C module gmprt._core: types, control, statistics, the end.
 *
 * It lives in the same shared object as the cffi module gmprt._native (_load.py loads both).  A cffi call
 * releases the GIL, which a channel operation that completes without waiting must not. */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "interpose.h"

extern int (*gm_start_hook)(void); /* gmprt.c */

struct errors errs;

/* gmprt.<module>.<name>, imported when first needed. */
PyObject *helper(const char *module, const char *name) {
  char full[64];
  PyOS_snprintf(full, sizeof full, "gmprt.%s", module);
  PyObject *mod = PyImport_ImportModule(full);
  PyObject *fn = mod ? PyObject_GetAttrString(mod, name) : NULL;
  Py_XDECREF(mod);
  return fn;
}

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
  for (uint32_t i = 1; i <= sched.nextmid; i++) {
    *parks += load_rlx(&sched.allm[i]->parks);
    *ended += load_rlx(&sched.allm[i]->ended);
  }
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
      {"timers_fired", load_rlx(&counts.timers_fired)},
      {"netpoll_waits", load_rlx(&counts.netpolls)},
      {"netpoll_ready", load_rlx(&counts.netready)},
      {"stack_reserved", load_rlx(&stack_reserved)},
      {"stack_slots", load_rlx(&stack_slots)},
      {"stop_the_worlds", load_rlx(&counts.stw)},
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

/* ---- SIGQUIT, dumps --------------------------------------------------------------------------------------- */

static void sigquit(int sig) {
  (void)sig;
  int e = errno;
  store_rlx(&sched.dumpreq, true);
  sysmon_wake();
  errno = e;
}

bool sigquit_install(void) {
  struct sigaction old, sa = {.sa_handler = sigquit, .sa_flags = SA_RESTART | SA_ONSTACK};
  sigemptyset(&sa.sa_mask);
  if (sigaction(SIGQUIT, NULL, &old) != 0 || old.sa_flags & SA_SIGINFO || old.sa_handler != SIG_DFL) return false;
  return sigaction(SIGQUIT, &sa, NULL) == 0;
}

static PyObject *py_install_sigquit(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return PyBool_FromLong(sigquit_install());
}

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

/* Of another M than m: it runs Python, or is about to make a thread state. */
static bool any_in_interpreter(M *m) {
  M *driver = load_rlx(&sched.l.holder);
  return (driver && driver != m) || load_acq(&sched.nstarting);
}

/* No M will touch the interpreter again: those asleep stay so, those that run Python give way here, and those that start
 * have their thread state: one that is made later, the interpreter would free with its thread alive. */
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
  shims_remove();
  interpose_remove();
  Py_RETURN_NONE;
}

static PyMethodDef control_functions[] = {
    {"stats", py_stats, METH_NOARGS, "stats()\n--\n\nCounters, as a dict."},
    {"features", py_features, METH_NOARGS, "features()\n--\n\nWhat was found on this machine."},
    {"interposed", py_interposed, METH_NOARGS,
     "interposed()\n--\n\n{path: [name, ...]}: C library functions that have a stand-in, and in which objects."},
    {"set_max_threads", py_set_max_threads, METH_O,
     "set_max_threads(n, /)\n--\n\nLimit the OS threads of the runtime; returns the old limit (10000 at first)."},
    {"set_max_stack", py_set_max_stack, METH_O,
     "set_max_stack(nbytes, /)\n--\n\nAddress space of the stacks made from now on; returns the old size."},
    {"set_dumper", py_set_dumper, METH_O, NULL},
    {"set_deadlock_dump", py_set_deadlock_dump, METH_O, NULL},
    {"install_sigquit", py_install_sigquit, METH_NOARGS, NULL},
    {"running", py_running, METH_NOARGS, NULL},
    {"stop", py_stop, METH_O, NULL},
    {NULL, NULL, 0, NULL}};

/* ---- the module --------------------------------------------------------------------------------------------- */

static int load_errors(void) {
  PyObject *mod = PyImport_ImportModule("gmprt._errors");
  if (!mod) return -1;
  const struct {
    const char *name;
    PyObject **at;
  } rows[] = {{"Error", &errs.Error},
              {"RuntimeNotRunning", &errs.RuntimeNotRunning},
              {"ChannelClosed", &errs.ChannelClosed},
              {"EndOfChannel", &errs.EndOfChannel},
              {"WouldBlock", &errs.WouldBlock},
              {"Cancelled", &errs.Cancelled},
              {"GoroutineCancelled", &errs.GoroutineCancelled},
              {"Deadlock", &errs.Deadlock},
              {"TooManyThreads", &errs.TooManyThreads},
              {"Timeout", &errs.Timeout},
              {"GoExit", &errs.GoExit}};
  for (size_t i = 0; i < nelem(rows); i++)
    if (!(*rows[i].at = PyObject_GetAttrString(mod, rows[i].name))) return -1;
  Py_DECREF(mod);
  return 0;
}

static int add_type(PyObject *module, PyTypeObject **out, PyType_Spec *spec, PyObject *bases) {
  *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, bases);
  return *out ? PyModule_AddType(module, *out) : -1;
}

/* gm_start() from cffi, which has dropped the GIL. */
static int py_gm_start(void) {
  PyGILState_STATE g = PyGILState_Ensure();
  int err = 0;
  errno = 0;
  if (!runtime_ensure()) {
    err = errno ? errno : EAGAIN;
    PyErr_Clear();
  }
  PyGILState_Release(g);
  return err;
}

static PyObject *the_module; /* once it has been made: one for the process, as the runtime is */
static bool finalized;

static void forget_interpreter(void) { finalized = true; }

/* Who takes the modules out of sys.modules and imports them again gets the same one: its types are those of all
 * the objects that there are. */
static PyObject *core_create(PyObject *spec, PyModuleDef *def) {
  (void)def;
  if (finalized || PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "gmprt supports only the main interpreter, and only the first of a process");
    return NULL;
  }
  if (the_module) return Py_NewRef(the_module);
  PyObject *name = PyObject_GetAttrString(spec, "name");
  PyObject *module = name ? PyModule_NewObject(name) : NULL;
  Py_XDECREF(name);
  return module;
}

/* Looks, and changes nothing of the process: that is for activate.c. */
static int core_exec(PyObject *module) {
  if (module == the_module) return 0;
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "gmprt supports only the main interpreter");
    return -1;
  }
  if (((unsigned long)Py_Version >> 16) != (PY_VERSION_HEX >> 16)) {
    PyErr_Format(PyExc_ImportError, "gmprt was built for Python %d.%d and this is %s", PY_MAJOR_VERSION,
                 PY_MINOR_VERSION, Py_GetVersion());
    return -1;
  }
  if (load_errors() < 0 || !outcome_init() || !selfcheck() || !tstate_init()) return -1;
  gm_start_hook = py_gm_start;
  host = &python_host;
  struct {
    PyTypeObject **out;
    PyType_Spec *spec;
    PyTypeObject *base;
  } types[] = {{&Goroutine_Type, &goroutine_spec, NULL}, {&Chan_Type, &chan_spec, NULL},
               {&SendView_Type, &sendview_spec, NULL},   {&RecvView_Type, &recvview_spec, NULL},
               {&Recv_Type, &recv_spec, NULL},           {&Send_Type, &send_spec, NULL},
               {&Select_Type, &select_spec, NULL},       {&Selected_Type, &selected_spec, &PyTuple_Type},
               {&Mutex_Type, &mutex_spec, NULL},         {&Semaphore_Type, &semaphore_spec, NULL},
               {&WaitGroup_Type, &waitgroup_spec, NULL}};
  for (size_t i = 0; i < nelem(types); i++)
    if (add_type(module, types[i].out, types[i].spec, (PyObject *)types[i].base) < 0) return -1;
  PyMethodDef *tables[] = {goroutine_functions, chan_functions, select_functions, native_functions,
                           run_functions,       thread_functions, control_functions, selfcheck_functions};
  for (size_t i = 0; i < nelem(tables); i++)
    if (PyModule_AddFunctions(module, tables[i]) < 0) return -1;
  if (Py_AtExit(forget_interpreter) < 0) {
    PyErr_SetString(PyExc_ImportError, "gmprt cannot be told of the interpreter's end");
    return -1;
  }
  the_module = Py_NewRef(module);
  return 0;
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_create, core_create},
                                        {Py_mod_exec, core_exec},
#ifdef Py_mod_multiple_interpreters
                                        {Py_mod_multiple_interpreters,
                                         Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
                                        {0, NULL}};
static PyModuleDef core_def = {PyModuleDef_HEAD_INIT,
                               .m_name = "gmprt._core",
                               .m_doc = "The C half of gmprt: goroutines, channels, select.",
                               .m_size = 0,
                               .m_slots = core_slots};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_def); }
