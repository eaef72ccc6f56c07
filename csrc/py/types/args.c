/* args.c - arguments: numbers, seconds, callables, time-outs.
 *
 * What is wrong with an argument is said in one way: "name(): argument must be ..., not ...".  A wrong type is a TypeError, a
 * wrong value a ValueError, however large: an int beyond all floats is as many seconds as infinity.  What the
 * argument's own methods raise goes to the caller as it is. */
#include <math.h>

#include "py/types/args.h"

int timeout_arg(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                       PyObject **timeout) {
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  *timeout = nargs + nkw > 0 ? args[0] : NULL;
  if (nargs + nkw <= 1 &&
      (nkw == 0 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "timeout") == 0))
    return 0;
  PyErr_Format(PyExc_TypeError, "%s() takes one argument: timeout", name);
  return -1;
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
