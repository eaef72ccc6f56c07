/* greenlet.c - greenlets belong to an OS thread: what gevent and SQLAlchemy's asyncio are made of.
 *
 * greenlet keeps who runs and whom it came from in a thread_local of C++, and a greenlet is switched to by the thread
 * that made it only.  threading.local, where gevent keeps its hub, follows the goroutine.  So a goroutine is locked to
 * its thread, as by lock_os_thread(), from its first use of greenlet to its end, and the thread ends with it: the hub,
 * the greenlets and the thread are of one goroutine, as they are of one thread elsewhere.
 *
 * So is the main goroutine, and not to the thread that called run().  That one may have greenlets on its own stack, or
 * come to them later, and greenlet takes all that a thread has to lie on one: it copies what is between two of them,
 * and aborts.  Between threads it raises.  So greenlets from before run() cannot be switched to inside, nor the other
 * way round.
 *
 * First use is a call of any entry that asks for the state of the thread.  Those that Python calls are in the table of
 * shim.c: getcurrent, settrace, gettrace, the type's tp_new, switch and throw.  C code has a table of pointers, which
 * it reads at each call.  tp_new is copied into subclasses when they are made: those that exist are walked.
 * What is left asks about a greenlet that there is already (dead, parent), or ends it; greenlet leaves one that is
 * another thread's to that.
 *
 * A greenlet's part of the stack is copied away while another one runs there.  So nothing of ours may point into it
 * over a call of Python code: a goroutine with greenlets has no shims (shim.c), which are linked on the stack.  Hence a
 * cancel ends none of its interposed calls, only waits of our own.  (Who waits has its waiters in its G.)  A locked
 * goroutine parks on its thread, and nobody scans its stack.
 *
 * Rejected: following the goroutine (the state's address is in the registers of C++), hooking __tls_get_addr in the
 * module (it cannot fail, and other architectures do without it). */
#include "py/host/lender.h"
#include "py/interpose/shim.h"

/* As in greenlet.h, which there may be none of. */
enum { API_NEW = 3, API_GETCURRENT, API_THROW, API_SWITCH, API_ENTRIES };
static void *api[API_ENTRIES]; /* the originals */

bool greenlet_wire(void) {
  Goroutine *self = on_m() ? current_handle() : NULL;
  if (!self || likely(self->greenlets) || load_rlx(&sched.stopping)) return true;
  if (!thread_keep(self->g)) return false;
  self->shim = NULL;
  return true;
}

static PyObject *api_new(PyObject *run, PyObject *parent) {
  return greenlet_wire() ? ((PyObject * (*)(PyObject *, PyObject *)) api[API_NEW])(run, parent) : NULL;
}

static PyObject *api_getcurrent(void) {
  return greenlet_wire() ? ((PyObject * (*)(void)) api[API_GETCURRENT])() : NULL;
}

static PyObject *api_throw(PyObject *o, PyObject *type, PyObject *value, PyObject *tb) {
  return greenlet_wire()
             ? ((PyObject * (*)(PyObject *, PyObject *, PyObject *, PyObject *)) api[API_THROW])(o, type, value, tb)
             : NULL;
}

static PyObject *api_switch(PyObject *o, PyObject *a, PyObject *k) {
  return greenlet_wire() ? ((PyObject * (*)(PyObject *, PyObject *, PyObject *)) api[API_SWITCH])(o, a, k) : NULL;
}

static void api_replace(void **table, int i, void *f) {
  api[i] = table[i];
  table[i] = f;
}

static void api_install(PyObject *capsule) {
  void **table = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
  if (!table || api[API_NEW]) return;
  api_replace(table, API_NEW, api_new);
  api_replace(table, API_GETCURRENT, api_getcurrent);
  api_replace(table, API_THROW, api_throw);
  api_replace(table, API_SWITCH, api_switch);
}

/* Subclasses that were made before.  All must have the same: Base.__new__(Sub) compares them. */
static void subclasses_install(PyObject *type, newfunc from, newfunc to) {
  PyObject *subs = PyObject_CallMethod(type, "__subclasses__", NULL);
  for (Py_ssize_t i = 0; subs && i < PyList_GET_SIZE(subs); i++) {
    PyTypeObject *sub = (PyTypeObject *)PyList_GET_ITEM(subs, i);
    if (sub->tp_new == from) sub->tp_new = to;
    subclasses_install((PyObject *)sub, from, to);
  }
  Py_XDECREF(subs);
}

/* tp_new of greenlet.greenlet has been replaced. */
void greenlet_found(PyObject *module, PyObject *type, newfunc from, newfunc to) {
  subclasses_install(type, from, to);
  PyObject *capsule = PyObject_GetAttrString(module, "_C_API");
  if (capsule && PyCapsule_CheckExact(capsule)) api_install(capsule);
  Py_XDECREF(capsule);
  PyErr_Clear();
}
