/* chanmany.c - send_many(), recv_many(): one crossing for many values.
 *
 * A value that has gone got its reference for the channel at that moment: nobody else runs between the two.  What a
 * result needs is made before values are taken, for they could not be given back; making it may run the collector and
 * with it any code, so how many there are is asked again afterwards. */
#include "sched/chaos.h"
#include "sched/park.h"
#include "py/host/errors.h"
#include "py/types/args.h"
#include "py/types/chan.h"

/* (one argument, /, *, timeout=None).  false: exception set. */
static bool parse(const char *fn, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, patience *p) {
  PyObject *timeout;
  if (nargs != 1) {
    PyErr_Format(PyExc_TypeError, "%s() takes exactly 1 positional argument (%zd given)", fn, nargs);
    return false;
  }
  return timeout_arg(fn, args + 1, 0, kwnames, &timeout) == 0 && patience_parse(fn, timeout, p) == 0;
}

/* ---- send --------------------------------------------------------------------------------------------- */

/* Waits until the value has gone.  false: exception set. */
static bool send_one(Chan *ch, PyObject *value, patience p) {
  Py_INCREF(value);
  for (;;) {
    wake_t r = chansend(&ch->c, &value, p.block, p.deadline, true);
    if (likely(r == WAKE_OK)) return true;
    if (r == WAKE_CLOSED)
      PyErr_SetString(errs.ChannelClosed, "send on closed channel");
    else if (many_error(r) == 0)
      continue;
    Py_DECREF(value);
    return false;
  }
}

static Py_ssize_t send_some(Chan *ch, PyObject *const *values, Py_ssize_t n) {
  Py_ssize_t sent = (Py_ssize_t)chansend_some(&ch->c, values, (size_t)n);
  for (Py_ssize_t i = 0; i < sent; i++) Py_INCREF(values[i]);
  return sent;
}

PyObject *py_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  chaos_point(true);
  patience p;
  if (!parse("send_many", args, nargs, kwnames, &p)) return NULL;
  PyObject *all = PySequence_Tuple(args[0]); /* stays as it is while we wait */
  if (!all) return NULL;
  Chan *ch = chan_of(self);
  Py_ssize_t n = PyTuple_GET_SIZE(all), sent = 0;
  bool ok = true;
  while (ok && sent < n) {
    sent += send_some(ch, &PyTuple_GET_ITEM(all, sent), n - sent);
    if (sent < n && (ok = send_one(ch, PyTuple_GET_ITEM(all, sent), p))) sent++;
  }
  if (unlikely(!ok)) raise_with_sent((size_t)sent);
  Py_DECREF(all);
  return ok ? PyLong_FromSsize_t(sent) : NULL;
}

/* ---- receive ------------------------------------------------------------------------------------------ */

/* How many values one sender hands to a receiver that waits: what a wake costs is shared by them.  Their places are made
 * before it waits, also if one value comes; so many are still a small object to the interpreter's allocator. */
#define AT_ONCE 64

/* How many could be received now, at most `most`; more than there are, if waiters have given up. */
static Py_ssize_t there(Chan *ch, Py_ssize_t most) {
  Py_ssize_t n = (Py_ssize_t)load_rlx(&ch->c.qcount);
  for (sudog *sg = ch->c.sendq.first; sg && n < most; sg = sg->next) n++;
  return n < most ? n : most;
}

/* Takes what is there into the empty places of the list from `used` on, and shortens it to what it has. */
static Py_ssize_t fill(Chan *ch, PyObject *list, Py_ssize_t used) {
  PyObject **items = ((PyListObject *)list)->ob_item;
  Py_ssize_t room = PyList_GET_SIZE(list) - used;
  Py_ssize_t got = (Py_ssize_t)chanrecv_some(&ch->c, items + used, (size_t)room);
  Py_SET_SIZE(list, used + got);
  return got;
}

/* What is there; an empty list if nothing is.  NULL: exception set. */
static PyObject *recv_there(Chan *ch, Py_ssize_t most) {
  PyObject *list = PyList_New(there(ch, most));
  if (list) fill(ch, list, 0);
  return list;
}

/* `first` has n values, and places for `room`.  The list that is returned has no more places than values, and what is
 * there besides; without memory it is that one.  Nobody may find `first` before: making another may run the collector. */
static PyObject *recv_rest(Chan *ch, PyObject *first, Py_ssize_t room, Py_ssize_t most) {
  Py_ssize_t n = PyList_GET_SIZE(first), more = there(ch, most - n);
  PyObject *list = more == 0 && n == room ? NULL : PyList_New(n + more);
  if (!list) {
    if (PyErr_Occurred()) PyErr_Clear();
    PyObject_GC_Track(first);
    return first;
  }
  memcpy(((PyListObject *)list)->ob_item, ((PyListObject *)first)->ob_item, (size_t)n * sizeof(PyObject *));
  Py_SET_SIZE(first, 0);
  PyObject_GC_Track(first);
  Py_DECREF(first);
  if (more > 0) fill(ch, list, n);
  return list;
}

/* Waits for up to *n values.  1: they are in `values`, *n of them; 0: closed and drained; -1: exception set. */
static int recv_first(Chan *ch, PyObject **values, size_t *n, patience p) {
  for (;;) {
    if (unlikely(ch->is_timer) && !chan_timer_poll(ch)) return -1;
    int64_t deadline = unlikely(ch->when != 0) ? chan_timer_deadline(ch, p.deadline) : p.deadline;
    wake_t r = chanrecv_wait(&ch->c, values, n, p.block, deadline, true);
    if (likely(r == WAKE_OK)) return 1;
    if (r == WAKE_CLOSED) return 0;
    if (r == WAKE_TIMEOUT && deadline != p.deadline) continue; /* the timer's time, not ours */
    if (many_error(r) != 0) return -1;
  }
}

static PyObject *recv_waiting(Chan *ch, Py_ssize_t most, patience p) {
  Py_ssize_t room = most < AT_ONCE ? most : AT_ONCE;
  PyObject *list = PyList_New(room);
  if (!list) return NULL;
  size_t n = (size_t)room;
  PyObject_GC_UnTrack(list); /* values come into its places while we wait: nobody may find it */
  Py_SET_SIZE(list, 0);
  int r = recv_first(ch, ((PyListObject *)list)->ob_item, &n, p);
  if (likely(r == 1)) {
    Py_SET_SIZE(list, (Py_ssize_t)n);
    return recv_rest(ch, list, room, most);
  }
  PyObject_GC_Track(list);
  if (r == 0) PyErr_SetString(errs.EndOfChannel, "channel is closed and drained");
  Py_DECREF(list);
  return NULL;
}

PyObject *py_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  chaos_point(true);
  patience p;
  int64_t most;
  if (!parse("recv_many", args, nargs, kwnames, &p)) return NULL;
  if (!integer_arg("recv_many", "max", args[0], 1, PY_SSIZE_T_MAX, &most)) return NULL;
  Chan *ch = chan_of(self);
  if (!ch->is_timer && (load_rlx(&ch->c.qcount) > 0 || ch->c.sendq.first)) {
    PyObject *list = recv_there(ch, (Py_ssize_t)most);
    if (!list || PyList_GET_SIZE(list) > 0) return list;
    Py_DECREF(list);
  }
  return recv_waiting(ch, (Py_ssize_t)most, p);
}
