/* limiter.c - Limiter: a token bucket, golang.org/x/time/rate step by step.
 *
 * The bucket holds `burst` tokens and gets `rate` of them a second.  Who takes more than there are makes a debt: tokens
 * is negative, and the time at which it will be paid is the taker's.  Nobody is queued; the order of the takers is
 * that of their times.  The GIL guards all, and nothing here runs Python code between a look and a change.
 *
 * Times are seconds of CLOCK_MONOTONIC: time.monotonic(). */
#include <math.h>

#include "base/clock.h"
#include "sched/chaos.h"
#include "sched/park.h"
#include "py/types/sync.h"
#include "py/types/types.h"

PyTypeObject *Limiter_Type, *Reservation_Type;

typedef struct Limiter {
  PyObject_HEAD
  double rate, tokens;
  int64_t burst;
  double last;       /* when `tokens` was true */
  double last_event; /* the latest time given to anybody */
} Limiter;

typedef struct Reservation {
  PyObject_HEAD
  Limiter *of;
  bool ok;
  int64_t n;
  double when; /* to act */
  double rate; /* then */
} Reservation;

/* Two times that differ by less are one: who gives back what he took in turn would else be held for a later taker. */
#define ROUNDING 1e-6

static double now_seconds(void) { return (double)nanotime() * 1e-9; }

/* ---- the bucket --------------------------------------------------------------------------------------- */

static double seconds_for(double rate, double tokens) { return rate > 0 ? tokens / rate : INFINITY; }
static double tokens_in(double rate, double seconds) { return rate > 0 && seconds != 0 ? seconds * rate : 0; }

static double tokens_at(const Limiter *self, double now) {
  double elapsed = now > self->last ? now - self->last : 0;
  return fmin(self->tokens + tokens_in(self->rate, elapsed), (double)self->burst);
}

/* When may the taker of n tokens act?  Changes nothing and says false if that is more than `most` seconds away, or n is
 * more than the bucket holds. */
static bool take(Limiter *self, double now, int64_t n, double most, double *when) {
  *when = now;
  if (isinf(self->rate)) return true;
  double left = tokens_at(self, now) - (double)n;
  double wait = left < 0 ? seconds_for(self->rate, -left) : 0;
  if (n > self->burst || wait > most) return false;
  *when = now + wait;
  self->last = now;
  self->tokens = left;
  self->last_event = *when;
  return true;
}

/* Undoes a take, but for the tokens on which later takers have counted. */
static void give_back(Limiter *self, double now, int64_t n, double when, double rate) {
  if (isinf(self->rate) || n == 0 || when < now) return;
  double later = self->last_event - when;
  bool last = fabs(later) < ROUNDING;
  double back = (double)n - (last ? 0 : tokens_in(rate, later));
  if (back <= 0) return;
  self->tokens = fmin(tokens_at(self, now) + back, (double)self->burst);
  self->last = now;
  if (last && rate > 0) {
    double before = when - seconds_for(rate, (double)n);
    if (before >= now) self->last_event = before;
  }
}

/* ---- arguments ---------------------------------------------------------------------------------------- */

enum { MOST_TOKENS = INT32_MAX };

/* (n=1, *, option=None).  false: exception set. */
static bool parse(const char *fn, const char *option, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  int64_t *n, PyObject **value) {
  PyObject *number = nargs > 0 ? args[0] : NULL;
  *n = 1;
  *value = NULL;
  if (nargs > 1) {
    PyErr_Format(PyExc_TypeError, "%s() takes at most 1 positional argument (%zd given)", fn, nargs);
    return false;
  }
  for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
    PyObject *name = PyTuple_GET_ITEM(kwnames, i);
    if (PyUnicode_CompareWithASCIIString(name, option) == 0) {
      *value = args[nargs + i];
    } else if (!number && PyUnicode_CompareWithASCIIString(name, "n") == 0) {
      number = args[nargs + i];
    } else {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", fn, name);
      return false;
    }
  }
  return !number || integer_arg(fn, "n", number, 0, MOST_TOKENS, n);
}

/* None: now. */
static bool time_arg(const char *fn, PyObject *o, double *now) {
  if (!o || o == Py_None) {
    *now = now_seconds();
    return true;
  }
  if (!seconds_arg(fn, "now", o, " or None", now)) return false;
  if (isfinite(*now)) return true;
  PyErr_Format(PyExc_ValueError, "%s(): now must be finite", fn);
  return false;
}

static bool rate_arg(const char *fn, PyObject *o, double *rate) {
  if (PyBool_Check(o) || !PyNumber_Check(o)) {
    PyErr_Format(PyExc_TypeError, "%s(): rate must be a number, not %.100s", fn, Py_TYPE(o)->tp_name);
    return false;
  }
  *rate = PyFloat_AsDouble(o);
  if (*rate == -1.0 && PyErr_Occurred()) {
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) PyErr_Format(PyExc_ValueError, "%s(): rate is too large", fn);
    return false;
  }
  if (*rate >= 0) return true;
  PyErr_Format(PyExc_ValueError, "%s(): rate must not be %s", fn, isnan(*rate) ? "NaN" : "negative");
  return false;
}

/* ---- Limiter ------------------------------------------------------------------------------------------ */

static PyObject *limiter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"rate", "burst", NULL};
  PyObject *per_second, *bucket = NULL;
  double rate;
  int64_t burst = 1;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:Limiter", names, &per_second, &bucket)) return NULL;
  if (!rate_arg("Limiter", per_second, &rate)) return NULL;
  if (bucket && !integer_arg("Limiter", "burst", bucket, 0, MOST_TOKENS, &burst)) return NULL;
  Limiter *self = (Limiter *)type->tp_alloc(type, 0);
  if (!self) return NULL;
  self->rate = rate;
  self->burst = burst;
  self->tokens = (double)burst;
  self->last = -INFINITY; /* full, whatever time the first taker names */
  return (PyObject *)self;
}

static PyObject *limiter_allow(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  int64_t n;
  PyObject *time;
  double now, when;
  if (!parse("allow", "now", args, nargs, kwnames, &n, &time) || !time_arg("allow", time, &now)) return NULL;
  return PyBool_FromLong(take((Limiter *)op, now, n, 0, &when));
}

static PyObject *limiter_reserve(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Limiter *self = (Limiter *)op;
  int64_t n;
  PyObject *time;
  double now;
  if (!parse("reserve", "now", args, nargs, kwnames, &n, &time) || !time_arg("reserve", time, &now)) return NULL;
  Reservation *r = (Reservation *)Reservation_Type->tp_alloc(Reservation_Type, 0);
  if (!r) return NULL;
  r->of = (Limiter *)Py_NewRef(op);
  r->rate = self->rate;
  r->ok = take(self, now, n, INFINITY, &r->when);
  r->n = r->ok ? n : 0;
  return (PyObject *)r;
}

/* Until `when`; false: exception set. */
static bool sleep_until(double when) {
  double left = when - now_seconds();
  if (left <= 0) return true;
  int64_t deadline = deadline_after(left);
  G *gp = getg(true);
  if (!gp) {
    PyErr_NoMemory();
    return false;
  }
  for (;;) {
    wake_t r = park_any(gp, NULL, NULL, waitReasonSleep, deadline, true);
    if (r == WAKE_TIMEOUT) return true;
    if (wake_error(r) != 0) return false;
  }
}

static PyObject *limiter_wait(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Limiter *self = (Limiter *)op;
  chaos_point(true);
  int64_t n;
  PyObject *timeout;
  patience p;
  if (!parse("wait", "timeout", args, nargs, kwnames, &n, &timeout)) return NULL;
  if (patience_parse_strict("wait", timeout, &p) < 0) return NULL;
  if (n > self->burst && !isinf(self->rate)) {
    PyErr_Format(PyExc_ValueError, "wait(): n must be at most %lld, the burst", (long long)self->burst);
    return NULL;
  }
  double now = now_seconds(), rate = self->rate, when;
  double most = !p.block ? 0 : p.deadline ? (double)p.deadline * 1e-9 - now : INFINITY;
  if (!take(self, now, n, most, &when)) Py_RETURN_FALSE;
  if (likely(sleep_until(when))) Py_RETURN_TRUE;
  give_back(self, now_seconds(), n, when, rate);
  return NULL;
}

static PyObject *limiter_tokens(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  double now;
  if (nargs > 0 || nkw > 1 || (nkw && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "now") != 0)) {
    PyErr_SetString(PyExc_TypeError, "tokens() takes one argument, by name: now");
    return NULL;
  }
  if (!time_arg("tokens", nkw ? args[0] : NULL, &now)) return NULL;
  return PyFloat_FromDouble(tokens_at((Limiter *)op, now));
}

static void settle(Limiter *self, double now) {
  self->tokens = tokens_at(self, now);
  self->last = now;
}

static PyObject *limiter_set_rate(PyObject *op, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"rate", "now", NULL};
  PyObject *per_second, *time = NULL;
  double rate, now;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:set_rate", names, &per_second, &time)) return NULL;
  if (!rate_arg("set_rate", per_second, &rate) || !time_arg("set_rate", time, &now)) return NULL;
  settle((Limiter *)op, now);
  ((Limiter *)op)->rate = rate;
  Py_RETURN_NONE;
}

static PyObject *limiter_set_burst(PyObject *op, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"burst", "now", NULL};
  PyObject *bucket, *time = NULL;
  int64_t burst;
  double now;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:set_burst", names, &bucket, &time)) return NULL;
  if (!integer_arg("set_burst", "burst", bucket, 0, MOST_TOKENS, &burst) || !time_arg("set_burst", time, &now))
    return NULL;
  settle((Limiter *)op, now);
  ((Limiter *)op)->burst = burst;
  Py_RETURN_NONE;
}

static PyObject *get_rate(PyObject *self, void *Py_UNUSED(c)) { return PyFloat_FromDouble(((Limiter *)self)->rate); }
static PyObject *get_burst(PyObject *self, void *Py_UNUSED(c)) {
  return PyLong_FromLongLong(((Limiter *)self)->burst);
}

static PyMethodDef limiter_methods[] = {
    {"allow", FN(limiter_allow), KW,
     "allow($self, n=1, *, now=None)\n--\n\nTake n tokens if they are there now; whether they were. Go's AllowN."},
    {"reserve", FN(limiter_reserve), KW,
     "reserve($self, n=1, *, now=None)\n--\n\nTake n tokens, now or in advance: when to act, says what is returned.\n"
     "Go's ReserveN."},
    {"wait", FN(limiter_wait), KW,
     "wait($self, n=1, *, timeout=None)\n--\n\nTake n tokens and wait until it is time. False, at once, if that would be\n"
     "more than timeout seconds. ValueError if n exceeds the burst. Who is cancelled gives them back. Go's WaitN."},
    {"tokens", FN(limiter_tokens), KW,
     "tokens($self, *, now=None)\n--\n\nHow many there are; negative: taken in advance."},
    {"set_rate", FN(limiter_set_rate), METH_VARARGS | METH_KEYWORDS,
     "set_rate($self, rate, *, now=None)\n--\n\nChange it. Who waits already waits as long as before."},
    {"set_burst", FN(limiter_set_burst), METH_VARARGS | METH_KEYWORDS,
     "set_burst($self, burst, *, now=None)\n--\n\nChange it. Who waits already waits as long as before."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef limiter_getset[] = {{"rate", get_rate, NULL, "tokens a second", NULL},
                                       {"burst", get_burst, NULL, "how many tokens it holds", NULL},
                                       {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, "Limiter(rate, burst=1)\n--\n\nA token bucket, full at first: `rate` events a second, `burst` of them at\n"
                "once. golang.org/x/time/rate. math.inf: no limit."},
    {Py_tp_new, limiter_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, limiter_methods},
    {Py_tp_getset, limiter_getset},
    {0, NULL}};
PyType_Spec limiter_spec = {"gmprt.Limiter", sizeof(Limiter), 0, FLAGS, limiter_slots};

/* ---- Reservation -------------------------------------------------------------------------------------- */

static void reservation_dealloc(PyObject *self) {
  Py_XDECREF(((Reservation *)self)->of);
  plain_dealloc(self);
}

/* (*, now=None) */
static bool only_now(const char *fn, PyObject *args, PyObject *kwargs, double *now) {
  static char *names[] = {"now", NULL};
  PyObject *time = NULL;
  char format[32];
  PyOS_snprintf(format, sizeof format, "|$O:%s", fn);
  return PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &time) && time_arg(fn, time, now);
}

static PyObject *reservation_delay(PyObject *op, PyObject *args, PyObject *kwargs) {
  Reservation *self = (Reservation *)op;
  double now;
  if (!only_now("delay", args, kwargs, &now)) return NULL;
  return PyFloat_FromDouble(self->ok ? fmax(self->when - now, 0) : INFINITY);
}

static PyObject *reservation_cancel(PyObject *op, PyObject *args, PyObject *kwargs) {
  Reservation *self = (Reservation *)op;
  double now;
  if (!only_now("cancel", args, kwargs, &now)) return NULL;
  if (self->ok) give_back(self->of, now, self->n, self->when, self->rate);
  self->n = 0; /* once */
  Py_RETURN_NONE;
}

static PyObject *get_ok(PyObject *self, void *Py_UNUSED(c)) { return PyBool_FromLong(((Reservation *)self)->ok); }

static PyMethodDef reservation_methods[] = {
    {"delay", FN(reservation_delay), METH_VARARGS | METH_KEYWORDS,
     "delay($self, *, now=None)\n--\n\nSeconds until it is time to act; infinite if not ok."},
    {"cancel", FN(reservation_cancel), METH_VARARGS | METH_KEYWORDS,
     "cancel($self, *, now=None)\n--\n\nGive the tokens back that nobody has counted on yet. Nothing if it is time."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef reservation_getset[] = {{"ok", get_ok, NULL, "false: more than the bucket holds", NULL},
                                           {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot reservation_slots[] = {{Py_tp_doc, "Tokens taken in advance: Limiter.reserve()."},
                                          {Py_tp_dealloc, reservation_dealloc},
                                          {Py_tp_methods, reservation_methods},
                                          {Py_tp_getset, reservation_getset},
                                          {0, NULL}};
PyType_Spec reservation_spec = {"gmprt.Reservation", sizeof(Reservation), 0, FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                reservation_slots};
