/* pending.c - what an evaluation loop looks at between instructions, as the self-check sees it: eval_breaker, which says
 * "look", and the queue of pending calls.
 *
 * Both are seen by what public functions do to them.  Before 3.13 the interpreter has one eval_breaker for all threads, and
 * computes it for the one that asks: a signal, and on 3.11 a pending call, sets it on the main thread only.  gmprt may be
 * imported on any.  Elsewhere an exception from outside sets it, which has to end some code, or the loops would look at
 * each step from then on. */
#include "py/cpython/pending.h"

/* Any code will do: it begins with a look at what is pending. */
static void run_something(void) {
  PyObject *names = PyDict_New();
  Py_XDECREF(names ? PyRun_String("0", Py_eval_input, names, names) : NULL);
  Py_XDECREF(names);
}

#ifdef HAVE_GLOBAL_BREAKER
/* Sets eval_breaker on any thread: some code of ours ends with it, and nobody else's. */
static bool async_exc(check *c) {
  unsigned long me = PyThread_get_thread_ident();
  if (value(c, c->now, TS(async_exc)) != 0) return true; /* this thread has one already: not our question */
  PyThreadState_SetAsyncExc(me, PyExc_InterruptedError);
  bool so = holds(c, PyInterpreterState_Get(), IS(ceval.eval_breaker), 1);
  run_something();
  if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_InterruptedError))
    PyErr_Clear();
  else
    PyThreadState_SetAsyncExc(me, NULL);
  return so;
}

/* As after a signal, which sets eval_breaker on the main thread alone.  Whoever looks next finds that there was none.  No
 * other state of this thread is left: that one would get what async_exc() sends. */
bool breaker_looks_sound(check *c) {
  _PyEval_SignalReceived(PyInterpreterState_Get());
  if (!holds(c, &_PyRuntime, RT(ceval.signals_pending), 1)) return false;
  bool main = value(c, &_PyRuntime, RT(main_thread)) == PyThread_get_thread_ident();
  return main ? holds(c, PyInterpreterState_Get(), IS(ceval.eval_breaker), 1) : async_exc(c);
}
#else
bool breaker_looks_sound(check *c) {
  (void)c;
  return true;
}
#endif

/* ---- pending calls ------------------------------------------------------------------------------------------- */

#ifdef HAVE_PENDING_ANYWHERE
static check *asking; /* GIL */

/* While it runs, the interpreter has noted that somebody runs pending calls. */
static int seen_inside(void *arg) {
  (void)arg;
  check *c = asking;
  if (!c) return 0; /* late: nobody asks any more */
  asking = NULL;
#ifdef HAVE_TSTATE_BREAKER
  points(c, PyInterpreterState_Get(), IS(ceval.pending.handling_thread), PyThreadState_Get());
#else
  holds(c, PyInterpreterState_Get(), IS(ceval.pending.busy), 1);
#endif
  return 0;
}

/* Posts one, and sees it in the queue. */
static bool posted(check *c) {
  const PyInterpreterState *own = PyInterpreterState_Get();
#ifdef HAVE_TSTATE_BREAKER
  uint64_t before = value(c, own, IS(ceval.pending.npending));
#endif
  if (_PyEval_AddPendingCall(PyInterpreterState_Get(), seen_inside, NULL, 0) != 0) return false;
#ifdef HAVE_TSTATE_BREAKER
  return holds(c, own, IS(ceval.pending.npending), before + 1) &&
         is(c, TS(eval_breaker), value(c, c->now, TS(eval_breaker)) & _PY_CALLS_TO_DO_BIT);
#else
  return holds(c, own, IS(ceval.pending.calls_to_do), 1);
#endif
}

bool pending_looks_sound(check *c) {
  asking = c;
  bool so = posted(c);
  if (so) run_something();
  so = so && !asking && !c->wrong;
  asking = NULL;
#ifdef HAVE_TSTATE_BREAKER
  return is(c, IS(ceval.pending.handling_thread), so);
#else
  return is(c, IS(ceval.pending.busy), so);
#endif
}
#else
bool pending_looks_sound(check *c) {
  (void)c;
  return true;
}
#endif
