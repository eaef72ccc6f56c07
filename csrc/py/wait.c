/* wait.c - from Python's seconds to deadlines, and from the end of a wait to an exception. */
#include <math.h>

#include "pyhost.h"

int64_t seconds_to_ns(double s) {
  if (!(s < 9.2e9)) return INT64_MAX - 1; /* 292 years, infinity */
  if (s <= -9.2e9) return INT64_MIN + 1;
  return (int64_t)(s * 1e9);
}

/* false: exception set. */
bool seconds_arg(const char *name, PyObject *o, const char *or_else, double *s) {
  PyNumberMethods *m = Py_TYPE(o)->tp_as_number;
  if (!m || (!m->nb_float && !m->nb_index)) {
    PyErr_Format(PyExc_TypeError, "%s must be a number of seconds%s, not %.100s", name, or_else, Py_TYPE(o)->tp_name);
    return false;
  }
  *s = PyFloat_AsDouble(o);
  return *s != -1.0 || !PyErr_Occurred();
}

/* For timeouts that may go by position: lock(True), as of threading's locks, means something else.  -1: exception set. */
int patience_parse_strict(PyObject *timeout, patience *out) {
  if (likely(!timeout || !PyBool_Check(timeout))) return patience_parse(timeout, out);
  PyErr_SetString(PyExc_TypeError, "timeout must be a number of seconds or None, not bool");
  return -1;
}

/* More than 0 seconds from now. */
int64_t deadline_after(double s) {
  int64_t ns = seconds_to_ns(s), now = nanotime();
  return ns > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + (ns > 0 ? ns : 1);
}

/* None: for ever.  0: poll.  Else seconds.  -1: exception set. */
int patience_parse(PyObject *timeout, patience *out) {
  out->block = true;
  out->deadline = 0;
  if (!timeout || timeout == Py_None) return 0;
  double s;
  if (!seconds_arg("timeout", timeout, " or None", &s)) return -1;
  if (isnan(s) || s < 0) {
    PyErr_SetString(PyExc_ValueError, "timeout must be a non-negative number of seconds, or None");
    return -1;
  }
  if (s == 0) {
    out->block = false;
    return 0;
  }
  out->deadline = deadline_after(s);
  return 0;
}

static void set_cancelled(void) {
  Goroutine *self = current_handle();
  PyObject *reason = self && self->more && self->more->reason ? self->more->reason : Py_None;
  PyObject *exc = PyObject_CallOneArg(errs.Cancelled, reason);
  if (!exc) return;
  PyErr_SetObject(errs.Cancelled, exc);
  Py_DECREF(exc);
}

static void set_deadlock(void) {
  Goroutine *self = current_handle();
  if (self) self->deadlocked = true;
  PyObject *dump = deadlock_hook ? PyObject_CallNoArgs(deadlock_hook) : NULL;
  if (self) self->deadlocked = false;
  if (!dump) {
    PyErr_Clear();
    dump = PyUnicode_FromString("");
    if (!dump) return;
  }
  PyObject *exc = PyObject_CallOneArg(errs.Deadlock, dump);
  Py_DECREF(dump);
  if (!exc) return;
  PyErr_SetObject(errs.Deadlock, exc);
  Py_DECREF(exc);
}

/* What a wait that was not served means to Python. 0: a signal was handled, wait on. */
int wake_error(wake_t r) {
  switch (r) {
    case WAKE_INTERRUPTED:
      return PyErr_CheckSignals();
    case WAKE_TIMEOUT:
      PyErr_SetString(errs.Timeout, "timed out");
      return -1;
    case WAKE_CANCELLED:
      set_cancelled();
      return -1;
    case WAKE_DEADLOCK:
      set_deadlock();
      return -1;
    case WAKE_WOULDBLOCK:
      PyErr_SetString(errs.WouldBlock, "the operation would block");
      return -1;
    case WAKE_NOMEM:
      PyErr_NoMemory();
      return -1;
    case WAKE_NOTHREAD:
      PyErr_SetString(errs.TooManyThreads, "below C code a wait keeps its thread, and no other would be left");
      return -1;
    default:
      PyErr_Format(PyExc_SystemError, "gmprt: unexpected end of a wait: %d", (int)r);
      return -1;
  }
}
