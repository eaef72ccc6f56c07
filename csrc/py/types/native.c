/* native.c - how Python waits for a native channel: what gmprt.native does with the GIL in hand.
 *
 * A cffi call drops the GIL, and who has dropped it cannot park: the goroutine would block its thread, deaf
 * to a cancel.  These keep it, and park attached as every operation of ours does; the peer may be native.
 *
 * Elements come as buffers of cffi's, whose memory stays where it is while a peer copies. */
#include "sched/chaos.h"
#include "sync/chan.h"
#include "py/types/args.h"

typedef struct operation {
  hchan *c;
  Py_buffer elem;
  patience p;
} operation;

/* (address of the gm_chan, buffer of one element, timeout). false: exception set. */
static bool operation_open(operation *o, const char *name, PyObject *const *args, Py_ssize_t nargs, int flags) {
  if (nargs != 3) {
    PyErr_Format(PyExc_TypeError, "%s(address, buffer, timeout)", name);
    return false;
  }
  o->c = PyLong_AsVoidPtr(args[0]);
  if (PyErr_Occurred() || patience_parse(name + strlen("native_"), args[2], &o->p) < 0) return false;
  if (PyObject_GetBuffer(args[1], &o->elem, flags) < 0) return false;
  if (o->elem.len == o->c->elemsize) return true;
  PyErr_Format(PyExc_ValueError, "an element has %d bytes, the buffer %zd", o->c->elemsize, o->elem.len);
  PyBuffer_Release(&o->elem);
  return false;
}

static PyObject *operation_run(operation *o, bool send) {
  for (;;) {
    wake_t r = send ? chansend(o->c, o->elem.buf, o->p.block, o->p.deadline, true)
                    : chanrecv(o->c, o->elem.buf, o->p.block, o->p.deadline, true);
    bool expected = r == WAKE_OK || r == WAKE_CLOSED || r == WAKE_WOULDBLOCK || r == WAKE_TIMEOUT;
    if (!expected && wake_error(r) == 0) continue;
    PyBuffer_Release(&o->elem);
    return expected ? PyLong_FromLong(r) : NULL;
  }
}

static PyObject *py_native_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  chaos_point(true);
  operation o;
  return operation_open(&o, "native_send", args, nargs, PyBUF_SIMPLE) ? operation_run(&o, true) : NULL;
}

static PyObject *py_native_recv(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  chaos_point(true);
  operation o;
  return operation_open(&o, "native_recv", args, nargs, PyBUF_WRITABLE) ? operation_run(&o, false) : NULL;
}

PyMethodDef native_functions[] = {{"native_send", FN(py_native_send), METH_FASTCALL, NULL},
                                  {"native_recv", FN(py_native_recv), METH_FASTCALL, NULL},
                                  {NULL, NULL, 0, NULL}};
