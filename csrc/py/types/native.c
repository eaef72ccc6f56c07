/* native.c - how Python waits for a native channel: what gmprt.native does with the GIL in hand.
 *
 * A cffi call drops the GIL, and who has dropped it cannot park: the goroutine would block its thread, deaf
 * to a cancel.  These keep it, and park attached as every operation of ours does; the peer may be native.
 *
 * Elements lie in somebody's buffer, cffi's or the user's, which stays where it is while we hold it: a peer copies from or
 * to it, and many elements go as a block, without a Python object for any of them. */
#include "py/host/errors.h"
#include "py/types/args.h"
#include "sched/chaos.h"
#include "sync/chan.h"

typedef struct operation {
  hchan *c;
  Py_buffer elems;
  size_t n; /* elements of the channel in it */
  patience p;
} operation;

/* (address of the gm_chan, buffer of some elements, timeout); `one`: of no more and no less. false: exception set. */
static bool operation_open(operation *o, const char *name, bool one, PyObject *const *args, Py_ssize_t nargs, int flags) {
  chaos_point(true);
  if (nargs != 3) {
    PyErr_Format(PyExc_TypeError, "%s(address, buffer, timeout)", name);
    return false;
  }
  o->c = PyLong_AsVoidPtr(args[0]);
  if (PyErr_Occurred() || patience_parse(name + strlen("native_"), args[2], &o->p) < 0) return false;
  if (PyObject_GetBuffer(args[1], &o->elems, flags) < 0) return false;
  o->n = (size_t)o->elems.len / o->c->elemsize;
  if ((size_t)o->elems.len == o->n * o->c->elemsize && (!one || o->n == 1)) return true;
  PyErr_Format(PyExc_ValueError, "an element has %d bytes, the buffer %zd", o->c->elemsize, o->elems.len);
  PyBuffer_Release(&o->elems);
  return false;
}

/* ---- one element ------------------------------------------------------------------------------------------- */

static PyObject *operation_run(operation *o, bool send) {
  for (;;) {
    wake_t r = send ? chansend(o->c, o->elems.buf, o->p.block, o->p.deadline, true)
                    : chanrecv(o->c, o->elems.buf, o->p.block, o->p.deadline, true);
    bool expected = r == WAKE_OK || r == WAKE_CLOSED || r == WAKE_WOULDBLOCK || r == WAKE_TIMEOUT;
    if (!expected && wake_error(r) == 0) continue;
    PyBuffer_Release(&o->elems);
    return expected ? PyLong_FromLong(r) : NULL;
  }
}

static PyObject *py_native_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  operation o;
  return operation_open(&o, "native_send", true, args, nargs, PyBUF_SIMPLE) ? operation_run(&o, true) : NULL;
}

static PyObject *py_native_recv(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  operation o;
  return operation_open(&o, "native_recv", true, args, nargs, PyBUF_WRITABLE) ? operation_run(&o, false) : NULL;
}

/* ---- many -------------------------------------------------------------------------------------------------- */

/* What ended it otherwise than well.  true: a signal was handled, or so: wait on. */
static bool goes_on(wake_t r, PyObject *closed, const char *message) {
  if (r != WAKE_CLOSED) return many_error(r) == 0;
  PyErr_SetString(closed, message);
  return false;
}

static PyObject *py_native_send_from(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  operation o;
  if (!operation_open(&o, "native_send_from", false, args, nargs, PyBUF_SIMPLE)) return NULL;
  size_t sent = 0;
  wake_t r;
  do r = chansend_many(o.c, o.elems.buf, o.n, &sent, o.p.block, o.p.deadline, true);
  while (r != WAKE_OK && goes_on(r, errs.ChannelClosed, "send on a closed channel"));
  if (unlikely(r != WAKE_OK)) raise_with_sent(sent);
  PyBuffer_Release(&o.elems);
  return r == WAKE_OK ? PyLong_FromSize_t(sent) : NULL;
}

static PyObject *py_native_recv_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  operation o;
  if (!operation_open(&o, "native_recv_into", false, args, nargs, PyBUF_WRITABLE)) return NULL;
  gm_assert(o.n > 0);
  size_t got;
  wake_t r;
  do r = chanrecv_many(o.c, o.elems.buf, o.n, &got, o.p.block, o.p.deadline, true);
  while (r != WAKE_OK && goes_on(r, errs.EndOfChannel, "receive on a closed and drained channel"));
  PyBuffer_Release(&o.elems);
  return r == WAKE_OK ? PyLong_FromSize_t(got) : NULL;
}

PyMethodDef native_functions[] = {{"native_send", FN(py_native_send), METH_FASTCALL, NULL},
                                  {"native_recv", FN(py_native_recv), METH_FASTCALL, NULL},
                                  {"native_send_from", FN(py_native_send_from), METH_FASTCALL, NULL},
                                  {"native_recv_into", FN(py_native_recv_into), METH_FASTCALL, NULL},
                                  {NULL, NULL, 0, NULL}};
