/* sync.h - what the types of locks share: sync.c, rwmutex.c, cond.c, atomic.c, limiter.c. */
#ifndef GMPRT_PY_TYPES_SYNC_H
#define GMPRT_PY_TYPES_SYNC_H

#include "sync/rwmutex.h"
#include "sync/sema.h"
#include "py/types/args.h"

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE)

typedef struct Mutex {
  PyObject_HEAD
  gomutex m;
} Mutex;

typedef struct RWMutex {
  PyObject_HEAD
  rwmutex rw;
} RWMutex;

/* The reader's side of one: Go's RLocker(). */
typedef struct RLocker {
  PyObject_HEAD
  RWMutex *of;
} RLocker;

/* One optional argument, timeout, by position or name. */
static inline int patience_arg(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                               patience *p) {
  PyObject *timeout;
  return timeout_arg(name, args, nargs, kwnames, &timeout) < 0 ? -1 : patience_parse_strict(name, timeout, p);
}

/* The same, by name only. */
static inline int patience_kwarg(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                                 patience *p) {
  if (likely(nargs == 0)) return patience_arg(name, args, nargs, kwnames, p);
  PyErr_Format(PyExc_TypeError, "%s() takes no positional arguments; timeout goes by name", name);
  return -1;
}

/* false: exception set. */
static inline bool no_arguments(const char *name, PyObject *args, PyObject *kwargs) {
  if (likely(!PyTuple_GET_SIZE(args) && !(kwargs && PyDict_GET_SIZE(kwargs)))) return true;
  PyErr_Format(PyExc_TypeError, "%s() takes no arguments", name);
  return false;
}

static inline void plain_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

/* Waits by calling `attempt` until served. 1, 0 (time is up, would block) or -1 (exception). */
#define WAIT(attempt) \
  ({ \
    int out_ = -2; \
    while (out_ == -2) { \
      wake_t r_ = (attempt); \
      if (likely(r_ == WAKE_OK)) \
        out_ = 1; \
      else if (r_ == WAKE_TIMEOUT || r_ == WAKE_WOULDBLOCK) \
        out_ = 0; \
      else if (wake_error(r_) != 0) \
        out_ = -1; \
    } \
    out_; \
  })

static inline PyObject *truth(int r) { return r < 0 ? NULL : PyBool_FromLong(r); }

#endif
