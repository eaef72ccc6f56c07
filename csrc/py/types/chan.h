/* chan.h - Chan: chan.c; channels of timers: timerchan.c. */
#ifndef GMPRT_PY_TYPES_CHAN_H
#define GMPRT_PY_TYPES_CHAN_H

#include "py/cpython/version.h"
#include "sync/chan.h"

typedef struct Chan {
  PyObject_HEAD
  hchan c;
  PyObject *name;
  PyObject *weakrefs;
  bool is_timer;         /* `when` counts.  A channel of timer_chan() has a one-slot buffer that len() does not show */
  bool closes;           /* a context's: at that time it is closed */
  struct Context *context; /* of its done(), borrowed: NULL when that is gone (context.c) */
  int64_t when, period;  /* nanotime() at which it fires next, 0: it does not; ns between two firings */
} Chan;

/* One direction of a channel. */
typedef struct View {
  PyObject_HEAD
  Chan *ch;
} View;

extern PyTypeObject *Chan_Type, *SendView_Type, *RecvView_Type;

/* Of a channel or a view. */
static inline Chan *chan_of(PyObject *self) {
  return likely(Py_TYPE(self) == Chan_Type) ? (Chan *)self : ((View *)self)->ch;
}

/* chan.c */
Chan *chan_make(PyTypeObject *type, size_t capacity, PyObject *name);
void drop_buffer(Chan *ch);

/* chanmany.c */
PyObject *py_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *py_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* timerchan.c */
bool chan_timer_poll(Chan *ch);
int64_t chan_timer_deadline(Chan *ch, int64_t deadline);

#endif
