/* context.c - Context: Go's context.Context, a tree of things that are cancelled from the top.
 *
 * A context that can be cancelled is a *core*; the others (values) have the core of their parent, background and what
 * without_cancel() returns have none.  Cores form the tree: a core holds those below it until they are cancelled, and
 * each holds its parent.
 *
 * All of a cancel is done with the GIL and runs no Python code: errors are set, channels closed, scopes cancelled, from
 * the top down, before anybody else can look.  So it is synchronous, and the first one wins, without a lock.  References
 * are dropped at the end.
 *
 * A deadline needs no timer.  A core has the earliest one of all above it, and is cancelled by whoever looks after that
 * moment: at err(), or at the channel, which is one that knows when (timerchan.c: who receives from it makes that moment
 * its own deadline).  Whose time is up is cancelled from the topmost down, so nobody can see a child done and its parent
 * not.  A context that nobody refers to is collected.
 *
 * Go differs in this: a goroutine per after_func, where Go has a callback; no goroutine for contexts of other types, of
 * which there are none. */
#include "base/clock.h"
#include "py/host/errors.h"
#include "py/types/args.h"
#include "py/types/context.h"
#include "py/types/types.h"

PyTypeObject *Context_Type, *CancelContext_Type;

struct Context {
  PyObject_HEAD
  Context *parent;     /* owned; NULL: background */
  Context *core;       /* itself or one above, borrowed; NULL: it cannot be cancelled */
  PyObject *key, *value;
  /* of a core */
  int64_t deadline;    /* nanotime(), its own or one from above; 0: none */
  PyObject *err, *cause;
  Chan *done;          /* made when it is first asked for */
  PyObject *receiver;  /* its view */
  Context *up;         /* in whose list it is: borrowed, and that list owns it */
  Context *first, *next, *prev;
  binding *bound;      /* scopes that end with it */
  PyObject *weakrefs;
};

/* ---- the tree --------------------------------------------------------------------------------------------------- */

static void link_below(Context *c, Context *up) {
  c->up = up;
  c->prev = NULL;
  c->next = up->first;
  if (up->first) up->first->prev = c;
  up->first = (Context *)Py_NewRef((PyObject *)c);
}

/* The caller gets the list's reference. */
static void unlink_from(Context *c) {
  if (c->prev)
    c->prev->next = c->next;
  else
    c->up->first = c->next;
  if (c->next) c->next->prev = c->prev;
  c->up = c->next = c->prev = NULL;
}

/* One core: no Python code runs. */
static void end_one(Context *c, PyObject *err, PyObject *cause) {
  c->err = Py_NewRef(err);
  c->cause = Py_NewRef(cause);
  if (c->done) {
    c->done->when = 0;
    chanclose(&c->done->c);
  }
  while (c->bound) {
    binding *b = c->bound;
    context_unbind(b);
    scope_cancel(b->s, cause);
  }
}

/* top, which has not been cancelled, and all below: each before those below it. */
static void end_tree(Context *top, PyObject *err, PyObject *cause) {
  if (top->up)
    unlink_from(top);
  else
    Py_INCREF((PyObject *)top);
  Context *last = top; /* a queue through `next`: each holds a reference */
  for (Context *c = top; c; c = c->next) {
    end_one(c, err, cause);
    while (c->first) {
      Context *child = c->first;
      unlink_from(child);
      last = last->next = child;
    }
  }
  while (top) {
    Context *next = top->next;
    top->next = NULL;
    Py_DECREF((PyObject *)top);
    top = next;
  }
}

/* The topmost whose time is up, from c on. */
static Context *overdue(Context *c) {
  Context *top = NULL;
  int64_t now = nanotime();
  for (; c && !c->err; c = c->up)
    if (c->deadline && c->deadline <= now) top = c;
  return top;
}

/* Its time may be up. false: exception set. */
static bool look(Context *core) {
  if (core->err || !core->deadline || !overdue(core)) return true;
  PyObject *err = PyObject_CallNoArgs(errs.DeadlineExceeded);
  if (!err) return false;
  Context *top = overdue(core); /* Python code has run */
  if (top) end_tree(top, err, err);
  Py_DECREF(err);
  return true;
}

/* The channel's time has come.  Its context may be gone, or go meanwhile: the collector may run. */
bool context_over(Chan *done) {
  PyObject *core = Py_XNewRef((PyObject *)done->context);
  if (core) {
    bool ok = look((Context *)core);
    Py_DECREF(core);
    return ok;
  }
  done->when = 0;
  chanclose(&done->c);
  return true;
}

void context_bind(Context *ctx, binding *b) {
  Context *core = ctx->core;
  if (!core) return;
  if (core->err) {
    scope_cancel(b->s, core->cause);
    return;
  }
  b->core = core;
  b->next = core->bound;
  b->link = &core->bound;
  if (b->next) b->next->link = &b->next;
  core->bound = b;
}

void context_unbind(binding *b) {
  if (!b->core) return;
  *b->link = b->next;
  if (b->next) b->next->link = b->link;
  b->core = NULL;
}

int64_t context_deadline(const Context *ctx) { return ctx->core ? ctx->core->deadline : 0; }

/* ---- making ----------------------------------------------------------------------------------------------------- */

static Context *blank(PyTypeObject *type, Context *parent) {
  Context *c = PyObject_GC_New(Context, type);
  if (!c) return NULL;
  memset((char *)c + sizeof(PyObject), 0, sizeof *c - sizeof(PyObject));
  c->parent = (Context *)Py_XNewRef((PyObject *)parent);
  return c;
}

static PyObject *made(Context *c) {
  PyObject_GC_Track(c);
  return (PyObject *)c;
}

static PyObject *py_background(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  static PyObject *background;
  if (!background) {
    Context *c = blank(Context_Type, NULL);
    background = c ? made(c) : NULL;
  }
  return Py_XNewRef(background);
}

/* The argument `parent` of that function, a new reference; None: background. */
static Context *parent_arg(const char *fn, PyObject *o) {
  if (o == Py_None) return (Context *)py_background(NULL, NULL);
  if (PyObject_TypeCheck(o, Context_Type)) return (Context *)Py_NewRef(o);
  PyErr_Format(PyExc_TypeError, "%s(): parent must be a context, not %.100s", fn, Py_TYPE(o)->tp_name);
  return NULL;
}

/* deadline 0: none of its own. */
static PyObject *core_below(Context *parent, int64_t deadline) {
  Context *up = parent->core;
  if (up && !look(up)) return NULL;
  Context *c = blank(CancelContext_Type, parent);
  if (!c) return NULL;
  int64_t above = up ? up->deadline : 0;
  c->core = c;
  c->deadline = above && (!deadline || above < deadline) ? above : deadline;
  if (up && up->err) {
    c->err = Py_NewRef(up->err);
    c->cause = Py_NewRef(up->cause);
  } else if (up) {
    link_below(c, up);
  }
  made(c);
  if (look(c)) return (PyObject *)c;
  Py_DECREF((PyObject *)c);
  return NULL;
}

/* (function, parent, seconds or None, are these from now?) */
static PyObject *py_context_cancel(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  const char *fn = nargs == 4 ? PyUnicode_AsUTF8(args[0]) : NULL;
  if (!fn) return NULL;
  int64_t deadline = 0;
  if (args[2] != Py_None) {
    bool from_now = args[3] == Py_True;
    double s;
    if (!seconds_arg(fn, from_now ? "seconds" : "deadline", args[2], "", &s)) return NULL;
    if (s != s) {
      PyErr_Format(PyExc_ValueError, "%s(): %s must not be NaN", fn, from_now ? "seconds" : "deadline");
      return NULL;
    }
    if (s < 9.2e9) deadline = !from_now ? seconds_to_ns(s) : s > 0 ? deadline_after(s) : nanotime();
    if (s < 9.2e9 && deadline <= 0) deadline = 1; /* long ago */
  }
  Context *parent = parent_arg(fn, args[1]);
  PyObject *c = parent ? core_below(parent, deadline) : NULL;
  Py_XDECREF((PyObject *)parent);
  return c;
}

/* (key, value, parent) */
static PyObject *py_context_value(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  if (nargs != 3) {
    PyErr_SetString(PyExc_TypeError, "context_value(key, value, parent)");
    return NULL;
  }
  if (args[0] == Py_None) {
    PyErr_SetString(PyExc_TypeError, "with_value(): key must not be None");
    return NULL;
  }
  if (PyObject_Hash(args[0]) == -1) return NULL; /* what may change is no key */
  Context *parent = parent_arg("with_value", args[2]), *c = parent ? blank(Context_Type, parent) : NULL;
  Py_XDECREF((PyObject *)parent);
  if (!c) return NULL;
  c->core = parent->core;
  c->key = Py_NewRef(args[0]);
  c->value = Py_NewRef(args[1]);
  return made(c);
}

static PyObject *py_without_cancel(PyObject *module, PyObject *arg) {
  (void)module;
  Context *parent = parent_arg("without_cancel", arg), *c = parent ? blank(Context_Type, parent) : NULL;
  Py_XDECREF((PyObject *)parent);
  return c ? made(c) : NULL;
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

static PyObject *endless; /* the receiver of a channel that is never closed */

static PyObject *receiver_of(Chan *ch) { return PyObject_GetAttrString((PyObject *)ch, "receiver"); }

static PyObject *never(void) {
  if (!endless) {
    Chan *ch = chan_make(Chan_Type, 0, NULL);
    endless = ch ? receiver_of(ch) : NULL;
    Py_XDECREF((PyObject *)ch);
  }
  return Py_XNewRef(endless);
}

static bool make_done(Context *core) {
  Chan *ch = chan_make(Chan_Type, 0, NULL);
  PyObject *view = ch ? receiver_of(ch) : NULL;
  if (!view || core->done) { /* the collector may have run anything */
    Py_XDECREF(view);
    Py_XDECREF((PyObject *)ch);
    return view != NULL;
  }
  ch->is_timer = ch->closes = core->deadline != 0;
  if (core->err) {
    chanclose(&ch->c);
  } else {
    ch->when = core->deadline;
    ch->context = core;
  }
  core->done = ch;
  core->receiver = view;
  return true;
}

static PyObject *py_done(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Context *core = ((Context *)op)->core;
  if (!core) return never();
  if (!look(core) || (!core->receiver && !make_done(core))) return NULL;
  return Py_NewRef(core->receiver);
}

static PyObject *py_err(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Context *core = ((Context *)op)->core;
  if (!core) Py_RETURN_NONE;
  if (!look(core)) return NULL;
  return Py_NewRef(core->err ? core->err : Py_None);
}

static PyObject *py_cause(PyObject *module, PyObject *op) {
  (void)module;
  if (!PyObject_TypeCheck(op, Context_Type)) {
    PyErr_Format(PyExc_TypeError, "cause(): ctx must be a context, not %.100s", Py_TYPE(op)->tp_name);
    return NULL;
  }
  Context *core = ((Context *)op)->core;
  if (!core) Py_RETURN_NONE;
  if (!look(core)) return NULL;
  return Py_NewRef(core->cause ? core->cause : Py_None);
}

static PyObject *py_deadline(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  int64_t when = context_deadline((Context *)op);
  if (!when) Py_RETURN_NONE;
  return PyFloat_FromDouble((double)when * 1e-9);
}

static PyObject *py_value(PyObject *op, PyObject *key) {
  for (Context *c = (Context *)op; c; c = c->parent) { /* op holds them all */
    int same = c->key ? PyObject_RichCompareBool(c->key, key, Py_EQ) : 0;
    if (same < 0) return NULL;
    if (same) return Py_NewRef(c->value);
  }
  Py_RETURN_NONE;
}

/* A new exception, for err() is one object that many may raise. */
PyObject *context_raise(Context *ctx, PyObject *cancelled) {
  Context *core = ctx->core;
  if (!look(core)) return NULL;
  bool late = core->err && PyErr_GivenExceptionMatches(core->err, errs.DeadlineExceeded);
  PyObject *type = late ? errs.DeadlineExceeded : errs.ContextCancelled, *exc = PyObject_CallNoArgs(type);
  if (!exc) return NULL;
  PyException_SetCause(exc, Py_NewRef(core->cause && core->cause != core->err ? core->cause : cancelled));
  PyErr_SetObject(type, exc);
  Py_DECREF(exc);
  return NULL;
}

/* ---- cancelling ------------------------------------------------------------------------------------------------- */

/* cause NULL: none. */
static PyObject *cancel(Context *c, PyObject *cause) {
  if (!look(c)) return NULL;
  if (c->err) Py_RETURN_NONE;
  PyObject *err = PyObject_CallNoArgs(errs.ContextCancelled);
  if (!err) return NULL;
  if (!c->err) end_tree(c, err, cause ? cause : err);
  Py_DECREF(err);
  Py_RETURN_NONE;
}

static PyObject *py_cancel(PyObject *op, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"cause", NULL};
  PyObject *cause = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &cause)) return NULL;
  if (cause != Py_None && !PyExceptionInstance_Check(cause)) {
    PyErr_Format(PyExc_TypeError, "cancel(): cause must be an exception or None, not %.100s", Py_TYPE(cause)->tp_name);
    return NULL;
  }
  return cancel((Context *)op, cause == Py_None ? NULL : cause);
}

static PyObject *py_enter(PyObject *op, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(op); }

static PyObject *py_exit(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  if (Py_TYPE(op) != CancelContext_Type) Py_RETURN_NONE;
  return cancel((Context *)op, NULL);
}

/* ---- the types -------------------------------------------------------------------------------------------------- */

static PyObject *context_repr(PyObject *op) {
  Context *c = (Context *)op;
  if (c->core == c) {
    char when[48] = "";
    double left = (double)(c->deadline - nanotime()) * 1e-9;
    if (c->deadline && !c->err) PyOS_snprintf(when, sizeof when, ", %.3f s left", left);
    return PyUnicode_FromFormat("<gmprt.context.CancelContext%s%s at %p>", c->err ? ", done" : "", when, c);
  }
  if (c->key) return PyUnicode_FromFormat("<gmprt.context.Context with %R at %p>", c->key, c);
  return PyUnicode_FromString(c->parent ? "<gmprt.context.Context without cancel>" : "<gmprt.context.background>");
}

static int context_traverse(PyObject *op, visitproc visit, void *arg) {
  Context *c = (Context *)op;
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(c->parent);
  Py_VISIT(c->key);
  Py_VISIT(c->value);
  Py_VISIT(c->err);
  Py_VISIT(c->cause);
  Py_VISIT(c->done);
  Py_VISIT(c->receiver);
  for (Context *child = c->first; child; child = child->next) Py_VISIT(child);
  return 0;
}

/* Its parent stays: it is what makes it a context, and the other cycles are broken. */
static int context_clear(PyObject *op) {
  Context *c = (Context *)op;
  while (c->first) {
    Context *child = c->first;
    unlink_from(child);
    Py_DECREF((PyObject *)child);
  }
  Py_CLEAR(c->value);
  Py_CLEAR(c->cause);
  return 0;
}

static void context_dealloc(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  Context *c = (Context *)op;
  PyObject_GC_UnTrack(op);
  Py_TRASHCAN_BEGIN(op, context_dealloc) /* each holds its parent */
  if (c->weakrefs) PyObject_ClearWeakRefs(op);
  if (c->done) c->done->context = NULL;
  context_clear(op);
  Py_XDECREF(c->key);
  Py_XDECREF(c->err);
  Py_XDECREF(c->receiver);
  Py_XDECREF((PyObject *)c->done);
  Py_XDECREF((PyObject *)c->parent);
  PyObject_GC_Del(op);
  Py_DECREF(type);
  Py_TRASHCAN_END
}

static PyMethodDef context_methods[] = {
    {"done", py_done, METH_NOARGS, "done($self, /)\n--\n\nA channel that is closed when the context is done. Go's Done."},
    {"err", py_err, METH_NOARGS,
     "err($self, /)\n--\n\nNone, or why it is done: ContextCancelled or DeadlineExceeded. Go's Err."},
    {"deadline", py_deadline, METH_NOARGS,
     "deadline($self, /)\n--\n\nThe time.monotonic() at which it is done at the latest, or None. Go's Deadline."},
    {"value", py_value, METH_O, "value($self, key, /)\n--\n\nWhat with_value() has set for the key, or None. Go's Value."},
    {"scope", context_scope, METH_NOARGS,
     "scope($self, /)\n--\n\nA block whose waits end with the context; it then ends with what err() says. In\n"
     "goroutines only."},
    {"__enter__", py_enter, METH_NOARGS, NULL},
    {"__exit__", FN(py_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
static PyMethodDef cancelcontext_methods[] = {
    {"cancel", FN(py_cancel), METH_VARARGS | METH_KEYWORDS,
     "cancel($self, cause=None)\n--\n\nEnd it, and all contexts below it, before this returns. The first cancel wins."},
    {NULL, NULL, 0, NULL}};
static PyMemberDef context_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Context, weakrefs), READONLY, NULL}, {NULL, 0, 0, 0, NULL}};
static PyType_Slot context_slots[] = {{Py_tp_doc, "A deadline, a cancel signal and values for a call and all that it calls."},
                                      {Py_tp_dealloc, context_dealloc},
                                      {Py_tp_traverse, context_traverse},
                                      {Py_tp_clear, context_clear},
                                      {Py_tp_methods, context_methods},
                                      {Py_tp_members, context_members},
                                      {Py_tp_repr, context_repr},
                                      {0, NULL}};
static PyType_Slot cancelcontext_slots[] = {{Py_tp_doc, "A context that can be cancelled; a `with` block of it does at its end."},
                                            {Py_tp_dealloc, context_dealloc},
                                            {Py_tp_traverse, context_traverse},
                                            {Py_tp_clear, context_clear},
                                            {Py_tp_methods, cancelcontext_methods},
                                            {0, NULL}};
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION)
PyType_Spec context_spec = {"gmprt.context.Context", sizeof(Context), 0, FLAGS | Py_TPFLAGS_BASETYPE, context_slots};
PyType_Spec cancelcontext_spec = {"gmprt.context.CancelContext", sizeof(Context), 0, FLAGS, cancelcontext_slots};

PyMethodDef context_functions[] = {{"context_background", py_background, METH_NOARGS, NULL},
                                   {"context_cancel", FN(py_context_cancel), METH_FASTCALL, NULL},
                                   {"context_value", FN(py_context_value), METH_FASTCALL, NULL},
                                   {"context_without_cancel", py_without_cancel, METH_O, NULL},
                                   {"context_cause", py_cause, METH_O, NULL},
                                   {NULL, NULL, 0, NULL}};
