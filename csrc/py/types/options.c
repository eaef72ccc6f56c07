/* options.c - what go() is told besides the call: options(name="x").go(fn, ...).
 *
 * go() hands all its arguments on, so it has no room for any of its own.  In C, for who is said to have created the
 * goroutine is the Python code that called.
 *
 * Rejected: go.named("x")(fn), which makes go() an object with state and names one option in its grammar; keywords of
 * go() with a prefix, which some callee will have, too. */
#include "py/host/life.h"
#include "py/types/args.h"
#include "py/types/types.h"

PyTypeObject *Options_Type;

typedef struct Options {
  PyObject_HEAD
  PyObject *name; /* NULL: as goroutines are born with */
  int detach;
} Options;

static PyObject *py_options(PyObject *module, PyObject *args, PyObject *kwargs) {
  (void)module;
  static char *names[] = {"name", "detach", NULL};
  PyObject *name = Py_None, *detach = Py_False;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OO!:options", names, &name, &PyBool_Type, &detach)) return NULL;
  if (name != Py_None && !PyUnicode_Check(name)) {
    PyErr_Format(PyExc_TypeError, "options(): name must be a str or None, not %.100s", Py_TYPE(name)->tp_name);
    return NULL;
  }
  Options *self = (Options *)Options_Type->tp_alloc(Options_Type, 0);
  if (!self) return NULL;
  self->name = name == Py_None ? NULL : Py_NewRef(name);
  self->detach = detach == Py_True;
  return (PyObject *)self;
}

static PyObject *options_go(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  Options *self = (Options *)op;
  if (nargs < 1) {
    PyErr_SetString(PyExc_TypeError, "go() needs fn, a callable");
    return NULL;
  }
  if (!callable_arg("go", "fn", args[0]) || !runtime_ensure()) return NULL;
  Goroutine *g = goroutine_new(args, nargs, kwnames);
  if (!g) return NULL;
  g->detached = self->detach;
  if (self->name) {
    if (!extras_of(g)) return (PyObject *)goroutine_drop(g);
    g->more->name = Py_NewRef(self->name);
  }
  return (PyObject *)goroutine_launch(g);
}

static PyObject *options_repr(PyObject *op) {
  Options *self = (Options *)op;
  return PyUnicode_FromFormat("gmprt.options(name=%R, detach=%s)", self->name ? self->name : Py_None,
                              self->detach ? "True" : "False");
}

static void options_dealloc(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  Py_XDECREF(((Options *)op)->name);
  type->tp_free(op);
  Py_DECREF(type);
}

static PyMethodDef options_methods[] = {
    {"go", FN(options_go), KW, "go($self, fn, /, *args, **kwargs)\n--\n\nAs gmprt.go(), with these options."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot options_slots[] = {{Py_tp_doc, "What options() returns: its go() starts goroutines that have them."},
                                      {Py_tp_dealloc, options_dealloc},
                                      {Py_tp_methods, options_methods},
                                      {Py_tp_repr, options_repr},
                                      {0, NULL}};
PyType_Spec options_spec = {"gmprt.Options", sizeof(Options), 0,
                            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                            options_slots};

PyMethodDef options_functions[] = {
    {"options", FN(py_options), METH_VARARGS | METH_KEYWORDS,
     "options(*, name=None, detach=False)\n--\n\nOptions for goroutines: options(name=\"x\").go(fn, ...) starts one that has\n"
     "them. detach: as g.detach(), from the start."},
    {NULL, NULL, 0, NULL}};
