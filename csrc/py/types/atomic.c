/* atomic.c - AtomicInt: an integer of any size that changes in one step.
 *
 * The GIL is held from the look to the change, and nothing between runs Python code: what is kept is an int itself, no
 * subclass, and int's own operations are called. */
#include "py/types/sync.h"
#include "py/types/types.h"

PyTypeObject *AtomicInt_Type;

typedef struct AtomicInt {
  PyObject_HEAD
  PyObject *value;
} AtomicInt;

/* New reference to a plain int. NULL: exception set. */
static PyObject *plain_int(const char *fn, const char *name, PyObject *o) {
  if (likely(PyLong_CheckExact(o))) return Py_NewRef(o);
  if (!PyIndex_Check(o)) {
    PyErr_Format(PyExc_TypeError, "%s(): %s must be an integer, not %.100s", fn, name, Py_TYPE(o)->tp_name);
    return NULL;
  }
  PyObject *n = PyNumber_Index(o);
  PyObject *plain = n ? PyLong_Type.tp_as_number->nb_positive(n) : NULL;
  Py_XDECREF(n);
  return plain;
}

static PyObject *atomic_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"value", NULL};
  PyObject *value = NULL;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:AtomicInt", names, &value)) return NULL;
  value = value ? plain_int("AtomicInt", "value", value) : PyLong_FromLong(0);
  AtomicInt *self = value ? (AtomicInt *)type->tp_alloc(type, 0) : NULL;
  if (self)
    self->value = value;
  else
    Py_XDECREF(value);
  return (PyObject *)self;
}

static void atomic_dealloc(PyObject *self) {
  Py_XDECREF(((AtomicInt *)self)->value);
  plain_dealloc(self);
}

static PyObject *atomic_load_value(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  return Py_NewRef(((AtomicInt *)self)->value);
}
static PyObject *atomic_swap(PyObject *self, PyObject *value) {
  value = plain_int("swap", "value", value);
  if (!value) return NULL;
  PyObject *old = ((AtomicInt *)self)->value;
  ((AtomicInt *)self)->value = value;
  return old;
}
static PyObject *atomic_store_value(PyObject *self, PyObject *value) {
  value = plain_int("store", "value", value);
  if (!value) return NULL;
  Py_SETREF(((AtomicInt *)self)->value, value);
  Py_RETURN_NONE;
}
static PyObject *atomic_add(PyObject *self, PyObject *n) {
  n = plain_int("add", "n", n);
  PyObject *sum = n ? PyLong_Type.tp_as_number->nb_add(((AtomicInt *)self)->value, n) : NULL;
  Py_XDECREF(n);
  if (!sum) return NULL;
  Py_SETREF(((AtomicInt *)self)->value, sum);
  return Py_NewRef(sum);
}
static PyObject *atomic_cas(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
  AtomicInt *self = (AtomicInt *)op;
  if (nargs != 2) {
    PyErr_Format(PyExc_TypeError, "compare_and_swap() takes exactly 2 positional arguments (%zd given)", nargs);
    return NULL;
  }
  PyObject *old = plain_int("compare_and_swap", "old", args[0]);
  PyObject *value = old ? plain_int("compare_and_swap", "new", args[1]) : NULL;
  int same = value ? PyObject_RichCompareBool(self->value, old, Py_EQ) : -1;
  Py_XDECREF(old);
  if (same == 1)
    Py_SETREF(self->value, value);
  else
    Py_XDECREF(value);
  return truth(same);
}
static PyObject *atomic_repr(PyObject *self) {
  return PyUnicode_FromFormat("<gmprt.AtomicInt %S>", ((AtomicInt *)self)->value);
}

static PyMethodDef atomic_methods[] = {
    {"load", atomic_load_value, METH_NOARGS, "load($self, /)\n--\n\nIts value."},
    {"store", atomic_store_value, METH_O, "store($self, value, /)\n--\n\nMake it `value`."},
    {"add", atomic_add, METH_O, "add($self, n, /)\n--\n\nAdd n; returns the new value."},
    {"swap", atomic_swap, METH_O, "swap($self, value, /)\n--\n\nMake it `value`; returns what it was."},
    {"compare_and_swap", FN(atomic_cas), METH_FASTCALL,
     "compare_and_swap($self, old, new, /)\n--\n\nMake it `new` if it is `old`; returns whether it was."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot atomic_slots[] = {
    {Py_tp_doc, "AtomicInt(value=0)\n--\n\nAn integer that goroutines and threads may change: each operation is one step.\n"
                "Go's atomic.Int64, but of any size."},
    {Py_tp_new, atomic_new},
    {Py_tp_dealloc, atomic_dealloc},
    {Py_tp_methods, atomic_methods},
    {Py_tp_repr, atomic_repr},
    {0, NULL}};
PyType_Spec atomic_spec = {"gmprt.AtomicInt", sizeof(AtomicInt), 0, FLAGS, atomic_slots};
