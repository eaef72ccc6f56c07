/* timerchan.c - channels that are sent the time: after(), Timer, Ticker.
 *
 * A timer channel has no timer in any heap: it knows when it fires, and whoever looks at it after that
 * moment finds a value (chan_timer_poll).  A receiver that waits makes that moment its own deadline.  So
 * an unreferenced timer is collected like any object, and after stop or reset no stale value can be
 * received: Go's semantics since 1.23.  stop and reset wake the waiting receivers to look again.  A context's is closed
 * instead. */
#include <time.h>

#include "base/clock.h"
#include "sched/l.h"
#include "py/types/args.h"
#include "py/types/context.h"
#include "py/types/types.h"

static double wall_clock(void) {
  struct timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Fires the timer if its time has come. Missed ticks are dropped, the phase is kept, as in Go.  false: exception
 * set, and it has still to fire. */
bool chan_timer_poll(Chan *ch) {
  if (!ch->when) return true;
  int64_t now = nanotime();
  if (now < ch->when) return true;
  if (ch->closes) return context_over(ch);
  int64_t late = now - ch->when;
  PyObject *v = PyFloat_FromDouble(wall_clock() - (double)late * 1e-9);
  if (!v) return false;
  ch->when = ch->period ? ch->when + ch->period * (1 + late / ch->period) : 0;
  if (chansend(&ch->c, &v, false, 0, true) != WAKE_OK) Py_DECREF(v); /* slow reader: the tick is lost */
  return true;
}

int64_t chan_timer_deadline(Chan *ch, int64_t deadline) {
  return ch->when && (!deadline || ch->when < deadline) ? ch->when : deadline;
}

/* Waiting receivers look at the timer again. */
static void kick_receivers(Chan *ch) {
  for (sudog *sg; (sg = dequeue(&ch->c.recvq)) != NULL;) {
    sg->g->param = NULL;
    sg->g->wakeres = WAKE_INTERRUPTED;
    goready_hosted(sg->g);
  }
}

/* True: it was still to fire, or had fired unseen. */
static PyObject *timer_set(Chan *ch, int64_t when, int64_t period) {
  if (!chan_timer_poll(ch)) return NULL;
  bool active = ch->when != 0 || load_rlx(&ch->c.qcount) > 0;
  drop_buffer(ch);
  ch->when = when;
  ch->period = period;
  kick_receivers(ch);
  return PyBool_FromLong(active);
}

static int parse_times(PyObject *const *args, Py_ssize_t n, int64_t *when, int64_t *period) {
  double s = PyFloat_AsDouble(args[0]), p = n > 1 ? PyFloat_AsDouble(args[1]) : 0.0;
  if (PyErr_Occurred()) return -1;
  if (s != s || p != p || p < 0) {
    PyErr_SetString(PyExc_ValueError, "not a number of seconds");
    return -1;
  }
  int64_t ns = seconds_to_ns(s), now = nanotime();
  *when = ns <= 0 ? now : ns > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + ns;
  *period = seconds_to_ns(p);
  return 0;
}

static PyObject *py_timer_chan(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  if (nargs < 1 || nargs > 2) {
    PyErr_SetString(PyExc_TypeError, "timer_chan(seconds, period=0.0)");
    return NULL;
  }
  int64_t when, period;
  if (parse_times(args, nargs, &when, &period) < 0) return NULL;
  Chan *ch = chan_make(Chan_Type, 1, NULL);
  if (!ch) return NULL;
  ch->is_timer = true;
  ch->when = when;
  ch->period = period;
  return (PyObject *)ch;
}

static Chan *timer_arg(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t least, Py_ssize_t most) {
  if (nargs < least || nargs > most || Py_TYPE(args[0]) != Chan_Type ||
      !((Chan *)args[0])->is_timer) {
    PyErr_SetString(PyExc_TypeError, "a channel of timer_chan() is wanted");
    return NULL;
  }
  return (Chan *)args[0];
}

static PyObject *py_timer_reset(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  Chan *ch = timer_arg(args, nargs, 2, 3);
  int64_t when, period;
  if (!ch || parse_times(args + 1, nargs - 1, &when, &period) < 0) return NULL;
  return timer_set(ch, when, period);
}

static PyObject *py_timer_stop(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  Chan *ch = timer_arg(args, nargs, 1, 1);
  return ch ? timer_set(ch, 0, 0) : NULL;
}

PyMethodDef timer_functions[] = {{"timer_chan", FN(py_timer_chan), METH_FASTCALL, NULL},
                                 {"timer_reset", FN(py_timer_reset), METH_FASTCALL, NULL},
                                 {"timer_stop", FN(py_timer_stop), METH_FASTCALL, NULL},
                                 {NULL, NULL, 0, NULL}};
