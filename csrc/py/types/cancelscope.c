/* cancelscope.c - CancelScope: what fail_after(), move_on_after() and shield() return.  The rules: host/scope.c. */
#include "base/clock.h"
#include "py/host/errors.h"
#include "py/host/scope.h"
#include "py/types/args.h"
#include "py/types/context.h"
#include "py/types/types.h"

PyTypeObject *CancelScope_Type;

typedef enum { FAILS, MOVES_ON, SHIELDS, FOLLOWS } what;
static const char *const names[] = {"fail_after", "move_on_after", "shield", "scope"};

typedef struct CancelScope {
  PyObject_HEAD
  scope s;
  what does;
  double seconds; /* infinity: no limit */
  PyObject *context; /* that it follows, or NULL */
  binding bound;     /* to that, while it is entered */
} CancelScope;

static PyObject *cancelscope_make(what does, double seconds, PyObject *context) {
  CancelScope *self = PyObject_GC_New(CancelScope, CancelScope_Type);
  if (!self) return NULL;
  self->s = (scope){.shields = does == SHIELDS};
  self->does = does;
  self->seconds = seconds;
  self->context = Py_XNewRef(context);
  self->bound = (binding){.s = &self->s};
  PyObject_GC_Track(self);
  return (PyObject *)self;
}

static PyObject *timed(what does, PyObject *arg) {
  double s = Py_HUGE_VAL;
  if (arg != Py_None && !seconds_arg(names[does], "seconds", arg, " or None", &s)) return NULL;
  if (s >= 0) return cancelscope_make(does, s, NULL);
  PyErr_Format(PyExc_ValueError, "%s(): seconds must not be %s", names[does], s < 0 ? "negative" : "NaN");
  return NULL;
}

static PyObject *py_fail_after(PyObject *module, PyObject *arg) {
  (void)module;
  return timed(FAILS, arg);
}
static PyObject *py_move_on_after(PyObject *module, PyObject *arg) {
  (void)module;
  return timed(MOVES_ON, arg);
}
static PyObject *py_shield(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  return cancelscope_make(SHIELDS, Py_HUGE_VAL, NULL);
}
PyObject *context_scope(PyObject *ctx, PyObject *Py_UNUSED(ignored)) {
  return cancelscope_make(FOLLOWS, Py_HUGE_VAL, ctx);
}

static int64_t deadline_of(const CancelScope *self) {
  if (self->context) return context_deadline((Context *)self->context);
  if (self->seconds == Py_HUGE_VAL) return 0;
  return self->seconds > 0 ? deadline_after(self->seconds) : nanotime();
}

static PyObject *py_enter(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  CancelScope *self = (CancelScope *)op;
  Goroutine *g = current_handle();
  if (unlikely(!g)) {
    if (self->does == SHIELDS) return Py_NewRef(op); /* no cancel comes here */
    PyErr_Format(PyExc_RuntimeError,
                 "%s() works in goroutines only: the waits of an ordinary thread cannot be ended (they have timeouts)",
                 names[self->does]);
    return NULL;
  }
  if (scope_enter(&self->s, g, deadline_of(self)) < 0) return NULL;
  if (self->context) context_bind((Context *)self->context, &self->bound);
  return Py_NewRef(op);
}

/* What has travelled through the block was its own cancel.  true: swallowed; NULL: exception set. */
static PyObject *expired(CancelScope *self, PyObject *cancelled) {
  if (self->does == MOVES_ON) Py_RETURN_TRUE;
  if (self->does == FOLLOWS) return context_raise((Context *)self->context, cancelled);
  char text[64];
  PyOS_snprintf(text, sizeof text, "deadline exceeded: the block had %g s", self->seconds);
  PyObject *exc = PyObject_CallFunction(errs.DeadlineExceeded, "s", text);
  if (!exc) return NULL;
  PyException_SetCause(exc, Py_NewRef(cancelled));
  PyErr_SetObject(errs.DeadlineExceeded, exc);
  Py_DECREF(exc);
  return NULL;
}

/* (type, exception, traceback) */
static PyObject *py_exit(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
  CancelScope *self = (CancelScope *)op;
  if (unlikely(nargs != 3)) {
    PyErr_SetString(PyExc_TypeError, "__exit__() takes three arguments");
    return NULL;
  }
  bool strayed = unlikely(self->s.owner && self->s.owner != current_handle());
  context_unbind(&self->bound);
  bool own = scope_leave(&self->s, args[1]);
  if (strayed) {
    PyErr_Format(PyExc_RuntimeError, "a %s() block was left in another goroutine than it was entered in",
                 names[self->does]);
    return NULL;
  }
  if (unlikely(own)) return expired(self, args[1]);
  Py_RETURN_FALSE;
}

static PyObject *get_expired(PyObject *op, void *Py_UNUSED(c)) {
  return PyBool_FromLong(((CancelScope *)op)->s.delivered);
}

static PyObject *cancelscope_repr(PyObject *op) {
  CancelScope *self = (CancelScope *)op;
  char seconds[32] = "";
  if (self->does == FAILS || self->does == MOVES_ON) PyOS_snprintf(seconds, sizeof seconds, "%g", self->seconds);
  const char *state = self->s.delivered ? " expired" : self->s.owner ? " entered" : "";
  return PyUnicode_FromFormat("<gmprt.CancelScope %s(%s)%s>", names[self->does], seconds, state);
}

static int cancelscope_traverse(PyObject *op, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(((CancelScope *)op)->context);
  return scope_traverse(&((CancelScope *)op)->s, visit, arg);
}
static int cancelscope_clear(PyObject *op) {
  scope_clear(&((CancelScope *)op)->s);
  return 0;
}
static void cancelscope_dealloc(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  PyObject_GC_UnTrack(op);
  CancelScope *self = (CancelScope *)op;
  context_unbind(&self->bound);
  scope_leave(&self->s, NULL);
  scope_clear(&self->s);
  Py_XDECREF(self->context);
  PyObject_GC_Del(op);
  Py_DECREF(type);
}

static PyMethodDef cancelscope_methods[] = {{"__enter__", py_enter, METH_NOARGS, NULL},
                                            {"__exit__", FN(py_exit), METH_FASTCALL, NULL},
                                            {NULL, NULL, 0, NULL}};
static PyGetSetDef cancelscope_getset[] = {
    {"expired", get_expired, NULL, "whether its time was up and a wait inside was ended for that", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot cancelscope_slots[] = {
    {Py_tp_doc, "A block of a goroutine, as fail_after(), move_on_after() and shield() return it."},
    {Py_tp_dealloc, cancelscope_dealloc},
    {Py_tp_traverse, cancelscope_traverse},
    {Py_tp_clear, cancelscope_clear},
    {Py_tp_methods, cancelscope_methods},
    {Py_tp_getset, cancelscope_getset},
    {Py_tp_repr, cancelscope_repr},
    {0, NULL}};
PyType_Spec cancelscope_spec = {"gmprt.CancelScope", sizeof(CancelScope), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                    Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                cancelscope_slots};

/* How many times Cancelled was raised in the running goroutine. */
static PyObject *py_cancels(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  Goroutine *self = current_handle();
  return PyLong_FromUnsignedLong(self && self->more ? self->more->cancels : 0);
}

PyMethodDef scope_functions[] = {
    {"fail_after", py_fail_after, METH_O,
     "fail_after(seconds, /)\n--\n\nA block that ends with DeadlineExceeded if it waits when its time is up. Trio's\n"
     "fail_after. In goroutines only."},
    {"move_on_after", py_move_on_after, METH_O,
     "move_on_after(seconds, /)\n--\n\nA block that is left if it waits when its time is up; `expired` tells. Trio's\n"
     "move_on_after. In goroutines only."},
    {"shield", py_shield, METH_NOARGS,
     "shield()\n--\n\nA block in which no cancel from outside is delivered: the first wait after it raises it."},
    {"cancels", py_cancels, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL}};
