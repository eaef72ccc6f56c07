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

/* chan.c */
Chan *chan_make(PyTypeObject *type, size_t capacity, PyObject *name);
void drop_buffer(Chan *ch);

/* timerchan.c */
bool chan_timer_poll(Chan *ch);
int64_t chan_timer_deadline(Chan *ch, int64_t deadline);

#endif
