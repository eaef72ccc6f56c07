/* pythread.c - how the interpreter starts a thread.
 *
 * All threads that Python code starts come from one function of _thread, which makes the new thread's state, puts it
 * into a struct of its own and has pthread_create called with a wrapper:
 *
 *     pthread_create(..., pythread_wrapper, {thread_run, bootstate})
 *
 * Both functions are static.  What they are is seen once, in a start that is made for this and refused, so that no thread
 * comes of it, and with them where that struct has the state: micro releases differ in that.  Others who come by that way
 * (faulthandler's watchdog, C code that calls PyThread_start_new_thread) have another function than thread_run, and no
 * state yet: they are not our business. */
#include "base/base.h"
#include "py/cpython/pythread.h"
#include "py/cpython/tstate.h"

/* What pythread_wrapper gets. */
typedef struct callback {
  void (*run)(void *);
  PyThreadState **bootstate;
} callback;

static struct {
  bool asking;
  void *(*wrapper)(void *);
  void (*run)(void *);
  unsigned word;       /* of the struct */
  PyThreadState *made; /* for the start that was refused */
} known;

static bool in_list(const PyThreadState *wanted) {
  PyThreadState *ts = PyInterpreterState_ThreadHead(interp);
  while (ts && ts != wanted) ts = PyThreadState_Next(ts);
  return ts != NULL;
}

bool pythread_probe(void *(*fn)(void *), void *arg) {
  if (likely(!known.asking) || !have_gil()) return false;
  known.asking = false;
  const callback *c = arg;
  for (unsigned i = 0; i < BOOTSTATE_WORDS; i++) {
    PyThreadState *ts = c->bootstate[i];
    if (ts == PyThreadState_Get() || !in_list(ts)) continue;
    known.wrapper = fn;
    known.run = c->run;
    known.word = i;
    known.made = ts;
  }
  return true;
}

/* What a start that is refused leaves (3.11, 3.12 forget the state). */
static void drop_made(void) {
  if (known.made && in_list(known.made)) PyThreadState_Delete(known.made);
  known.made = NULL;
}

bool pythread_learn(void) {
  if (known.run) return true;
  PyObject *mod = PyImport_ImportModule("_thread");
  if (!mod) return false;
  known.asking = true;
  PyObject *r = PyObject_CallMethod(mod, "start_new_thread", "O()", (PyObject *)&PyBaseObject_Type);
  bool asked = !known.asking; /* pthread_create was */
  known.asking = false;
  drop_made();
  Py_XDECREF(r);
  Py_DECREF(mod);
  if (known.run) {
    PyErr_Clear();
    return true;
  }
  if (r || asked)
    PyErr_SetString(PyExc_RuntimeError, "_thread.start_new_thread does not start threads as this interpreter's would");
  return false;
}

PyThreadState *pythread_state(void *(*fn)(void *), void *arg) {
  const callback *c = arg;
  return fn == known.wrapper && c->run == known.run ? c->bootstate[known.word] : NULL;
}
