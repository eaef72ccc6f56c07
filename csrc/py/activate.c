/* activate.c - gmprt becomes active: at the first go(), run() or other call that needs the runtime.
 *
 * Importing changes nothing of the process.  What does is here, in this order (after an import of what that takes,
 * gmprt/_life/activate.py, and a look at file objects, cancel.c, during which other threads may come and do the same):
 *   handlers of pthread_atfork (host/atfork.c);
 *   the interpreter's lists of what it calls after a fork (host/fork.c);
 *   entries of offset tables, and handlers of signals behind the relay (interpose/objects.c);
 *   C functions behind names of Python (interpose/shim.c);
 *   threading._DummyThread (host/thread.c).
 * Then the runtime starts (schedinit): signal handlers of its own, descriptors, threads.
 *
 * Once for a process; a forked child inherits all of it.  It happens with the GIL, and the collector rests meanwhile, so
 * that no code of the program runs in between and no other thread comes: to those it is one step.  They may be anywhere
 * in C, in functions that are replaced too; who has entered the original ends there, and meets the stand-in the next
 * time, which lets ordinary threads through.
 *
 * What fails is undone, but for the handlers of forks, which cannot be: they do nothing while nothing runs, and stay
 * for the next try. */
#include "py/cpython/bucket.h"
#include "py/host/above.h"
#include "py/host/fork.h"
#include "py/host/thread.h"
#include "py/interpose/hooks/hooks.h"

static bool forks_are_heard(void) {
  if (fork_register()) return true;
  PyErr_NoMemory();
  return false;
}

void deactivate(void) {
  shims_remove();
  if (interposed.gil) signals_relay(false);
  interpose_remove();
}

static bool change(void) {
  if (!forks_are_heard() || !fork_handlers_register() || !interpose_install(hooks, nhooks)) return false;
  if (interposed.gil) signals_relay(true);
  bucket_learn();
  if (shims_install() && threads_install()) return true;
  deactivate();
  return false;
}

/* Blocking calls will not park, though nobody has asked for that: said once.  (It may be made an exception: then of this
 * call, and the next one goes on.) */
static bool say_what_is_missing(void) {
  if (interpose_possible()) return true;
  return PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                          "interposition is %s: blocking calls will hold a thread each, and goroutines share their "
                          "thread's identity",
                          interpose_mode()) == 0;
}

static bool import_once(void) {
  PyObject *mod = PyImport_ImportModule("gmprt._life.activate");
  Py_XDECREF(mod);
  return mod != NULL;
}

static const char *const modules[] = {"gmprt._life.activate", "gmprt._life.excepthook", "gmprt._life.threads"};

/* Takes them out of sys.modules, or puts them back. */
static void modules_swap(PyObject *kept[], bool out) {
  PyObject *all = PyImport_GetModuleDict(), *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  for (size_t i = 0; i < nelem(modules); i++) {
    if (out && (kept[i] = Py_XNewRef(PyDict_GetItemString(all, modules[i])))) PyDict_DelItemString(all, modules[i]);
    if (!out && kept[i]) PyDict_SetItemString(all, modules[i], kept[i]);
  }
  PyErr_Clear();
  PyErr_Restore(type, value, traceback);
}

/* Who calls go() in the middle of that very import (a signal handler, a destructor, an import hook) finds modules that
 * are not whole, and nobody will make them so before it returns.  It imports them anew, for itself: what they hand over
 * may be handed over twice.  Not if what they import is being imported: that says so. */
static bool import(void) {
  if (!import_once()) return false;
  if (likely(threads_known())) return true;
  PyObject *kept[nelem(modules)];
  modules_swap(kept, true);
  bool done = import_once();
  if (done && !threads_known()) PyErr_SetString(PyExc_ImportError, "gmprt is just becoming active on another thread");
  if (!threads_known()) modules_swap(kept, false);
  for (size_t i = 0; i < nelem(modules); i++) Py_XDECREF(kept[i]);
  return done && threads_known();
}

/* false: exception set, and nothing has happened. */
bool activate(void) {
  static bool active;
  if (active) return true;
  if (!import() || !cancel_find_files()) return false;
  if (active) return true; /* Python code has run, so others may have been here */
  bool collects = PyGC_Disable();
  active = change();
  if (collects) PyGC_Enable();
  return active && say_what_is_missing();
}
