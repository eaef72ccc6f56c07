/* wait.c - from seconds to deadlines, and from the end of a wait to an exception. */
#include "base/clock.h"
#include "py/cpython/exception.h"
#include "py/host/errors.h"
#include "py/host/host.h"
#include "py/host/scope.h"
#include "py/types/args.h"

int64_t seconds_to_ns(double s) {
  if (!(s < 9.2e9)) return INT64_MAX - 1; /* 292 years, infinity */
  if (s <= -9.2e9) return INT64_MIN + 1;
  return (int64_t)(s * 1e9);
}

/* More than 0 seconds from now. */
int64_t deadline_after(double s) {
  int64_t ns = seconds_to_ns(s), now = nanotime();
  return ns > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + (ns > 0 ? ns : 1);
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
    case WAKE_CANCELLED: /* by a goroutine's handle alone, which only goroutines have */
      return cancel_deliver(current_handle());
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

/* The same for operations on many values: a poll that finds nothing is a Timeout. */
int many_error(wake_t r) { return wake_error(r == WAKE_WOULDBLOCK ? WAKE_TIMEOUT : r); }

/* The exception that is being raised says how many went. */
void raise_with_sent(size_t sent) {
  PyObject *exc = take_exception();
  PyObject *n = PyLong_FromSize_t(sent);
  if (!n || PyObject_SetAttrString(exc, "sent", n) < 0) PyErr_Clear();
  Py_XDECREF(n);
  PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
  Py_DECREF(exc);
}
