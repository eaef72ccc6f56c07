/* wait.c - from Python's numbers to ours, from seconds to deadlines, and from the end of a wait to an exception.
 *
 * What is wrong with an argument is said in one way: "name(): argument must be ..., not ...".  A wrong type is a TypeError, a
 * wrong value a ValueError, however large: an int beyond all floats is as many seconds as infinity.  What the
 * argument's own methods raise goes to the caller as it is. */
#include <math.h>

#include "pyhost.h"

int64_t seconds_to_ns(double s) {
  if (!(s < 9.2e9)) return INT64_MAX - 1; /* 292 years, infinity */
  if (s <= -9.2e9) return INT64_MIN + 1;
  return (int64_t)(s * 1e9);
}

static double seconds_of_int(PyObject *n) {
  double s = PyLong_AsDouble(n);
  if (s != -1.0 || !PyErr_Occurred() || !PyErr_ExceptionMatches(PyExc_OverflowError)) return s;
  int sign;
  PyErr_Clear();
  PyLong_AsLongLongAndOverflow(n, &sign);
  return sign * INFINITY;
}

/* or_else: what may stand there besides.  false: exception set. */
bool seconds_arg(const char *fn, const char *name, PyObject *o, const char *or_else, double *s) {
  PyNumberMethods *m = Py_TYPE(o)->tp_as_number;
  if (!m || (!m->nb_float && !m->nb_index)) {
    PyErr_Format(PyExc_TypeError, "%s(): %s must be a number of seconds%s, not %.100s", fn, name, or_else,
                 Py_TYPE(o)->tp_name);
    return false;
  }
  if (!PyLong_Check(o) && m->nb_float) {
    *s = PyFloat_AsDouble(o);
  } else {
    PyObject *n = PyNumber_Index(o);
    if (!n) return false;
    *s = seconds_of_int(n);
    Py_DECREF(n);
  }
  return *s != -1.0 || !PyErr_Occurred();
}

/* An integer between lo and hi.  false: exception set. */
bool integer_arg(const char *fn, const char *name, PyObject *o, int64_t lo, int64_t hi, int64_t *value) {
  if (!PyIndex_Check(o)) {
    PyErr_Format(PyExc_TypeError, "%s(): %s must be an integer, not %.100s", fn, name, Py_TYPE(o)->tp_name);
    return false;
  }
  PyObject *n = PyNumber_Index(o);
  if (!n) return false;
  int beyond;
  long long v = PyLong_AsLongLongAndOverflow(n, &beyond);
  Py_DECREF(n);
  if (beyond || v < lo || v > hi) {
    PyErr_Format(PyExc_ValueError, "%s(): %s must be between %lld and %lld", fn, name, (long long)lo, (long long)hi);
    return false;
  }
  *value = v;
  return true;
}

bool callable_arg(const char *fn, const char *name, PyObject *o) {
  if (likely(PyCallable_Check(o))) return true;
  PyErr_Format(PyExc_TypeError, "%s(): %s must be callable, not %.100s", fn, name, Py_TYPE(o)->tp_name);
  return false;
}

/* For timeouts that may go by position: lock(True), as of threading's locks, means something else.  -1: exception set. */
int patience_parse_strict(const char *fn, PyObject *timeout, patience *out) {
  if (likely(!timeout || !PyBool_Check(timeout))) return patience_parse(fn, timeout, out);
  PyErr_Format(PyExc_TypeError, "%s(): timeout must be a number of seconds or None, not bool", fn);
  return -1;
}

/* More than 0 seconds from now. */
int64_t deadline_after(double s) {
  int64_t ns = seconds_to_ns(s), now = nanotime();
  return ns > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + (ns > 0 ? ns : 1);
}

/* None: for ever.  0: poll.  Else seconds.  -1: exception set. */
int patience_parse(const char *fn, PyObject *timeout, patience *out) {
  out->block = true;
  out->deadline = 0;
  if (!timeout || timeout == Py_None) return 0;
  double s;
  if (!seconds_arg(fn, "timeout", timeout, " or None", &s)) return -1;
  if (isnan(s) || s < 0) {
    PyErr_Format(PyExc_ValueError, "%s(): timeout must not be %s", fn, s < 0 ? "negative" : "NaN");
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
