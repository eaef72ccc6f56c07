/* group.c - Group: goroutines that end before the block does; Go's errgroup and Trio's nursery in one.
 *
 * A member stands in the group's list from its start to its end, with its handle; it holds the group.  Its end is told
 * by the goroutine itself (host/life.c), behind its callbacks: it leaves the list, its failure is noted, which collects
 * it, and the first one cancels the others and, if there is one, the body of the block: a scope (host/scope.c).
 *
 * __exit__ is C, as is all that must not be interrupted by a signal's handler: between the end of the body and the end of
 * the last member nothing else runs in the goroutine that waits.  What ends its wait, a cancel or a Ctrl-C, is kept,
 * handed on to the members, and raised when they have ended.  What is raised then is decided in _api/group.py.
 *
 * A group whose body is not guarded (crew()) is for iterators: what runs between two of their values is not theirs. */
#include "sync/sema.h"
#include "py/cpython/exception.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/life.h"
#include "py/host/scope.h"
#include "py/types/args.h"
#include "py/types/types.h"

PyTypeObject *Group_Type;

typedef struct Group {
  PyObject_HEAD
  scope s;              /* of the body */
  enum { UNUSED, OPEN, ENDED } state;
  bool unguarded, limited;
  bool aborted;         /* all are cancelled, and who comes later is, too */
  PyObject *reason;     /* of that */
  Goroutine *members;   /* through extras.gnext */
  Py_ssize_t count;     /* members, and those that are being started */
  waitq waiters;        /* for the count to be 0 */
  sema slots;           /* `limited` */
  PyObject *failed;     /* list of members, in the order in which they ended; NULL: none */
  PyObject *cancels;    /* list: each Cancelled with which a member has ended */
  PyObject *weakrefs;
} Group;

static PyObject *group_make(Py_ssize_t limit, bool unguarded) {
  Group *self = PyObject_GC_New(Group, Group_Type);
  if (!self) return NULL;
  memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
  self->unguarded = unguarded;
  self->limited = limit > 0;
  self->slots.hosted = true;
  self->slots.value = (uint32_t)limit;
  PyObject_GC_Track(self);
  return (PyObject *)self;
}

static PyObject *group_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  (void)type;
  static char *names[] = {"limit", NULL};
  PyObject *limit = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Group", names, &limit)) return NULL;
  int64_t n = 0;
  if (limit != Py_None && !integer_arg("Group", "limit", limit, 1, UINT32_MAX, &n)) return NULL;
  return group_make((Py_ssize_t)n, false);
}

/* (function, limit): for as many, and one that starts them */
static PyObject *py_crew(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  const char *fn = nargs == 2 ? PyUnicode_AsUTF8(args[0]) : NULL;
  int64_t n;
  if (!fn || !integer_arg(fn, "limit", args[1], 1, UINT32_MAX - 1, &n)) return NULL;
  return group_make((Py_ssize_t)n + 1, true);
}

/* ---- members ---------------------------------------------------------------------------------------------------- */

static void join_list(Group *self, Goroutine *g) {
  extras *m = g->more;
  Py_INCREF((PyObject *)g);
  m->group = Py_NewRef((PyObject *)self);
  m->gprev = NULL;
  m->gnext = self->members;
  if (self->members) self->members->more->gprev = g;
  self->members = g;
}

static void leave_list(Group *self, Goroutine *g) {
  extras *m = g->more;
  if (m->gprev)
    m->gprev->more->gnext = m->gnext;
  else
    self->members = m->gnext;
  if (m->gnext) m->gnext->more->gprev = m->gprev;
  m->gnext = m->gprev = NULL;
}

/* The reason of an earlier cancel goes to the list: its end may run anything.  Without a list, for want of memory, it is
 * lost. */
static void cancel_one(Goroutine *g, PyObject *reason, PyObject *earlier) {
  PyObject *old = g->more->reason;
  g->more->reason = Py_NewRef(reason);
  cancel_direct(g);
  if (old && earlier && PyList_Append(earlier, old) == 0) Py_DECREF(old);
}

static void cancel_members(Group *self, PyObject *reason) {
  PyObject *earlier = PyList_New(0);
  for (Goroutine *g = self->members; g; g = g->more->gnext)
    if (!g->done) cancel_one(g, reason, earlier);
  PyErr_Clear();
  Py_XDECREF(earlier);
}

static void abort_all(Group *self, PyObject *reason) {
  Py_INCREF(reason);
  if (!self->aborted) {
    self->aborted = true;
    self->reason = Py_NewRef(reason);
  }
  scope_cancel(&self->s, reason);
  cancel_members(self, reason);
  Py_DECREF(reason);
}

static bool append(PyObject **list, PyObject *o) {
  if (!*list && !(*list = PyList_New(0))) return false;
  return PyList_Append(*list, o) == 0;
}

/* A failure that cannot be noted for want of memory stays uncollected, and is reported. */
static void note_failure(Group *self, Goroutine *g) {
  if (g->cancelled) {
    if (!append(&self->cancels, g->outcome)) PyErr_Clear();
    return;
  }
  if (append(&self->failed, (PyObject *)g)) {
    g->collected = true;
    failed_unlink(g);
  } else {
    PyErr_Clear();
  }
  if (!self->aborted) abort_all(self, g->outcome);
}

/* In g, which is a member and has ended. */
void group_member_ended(Goroutine *g) {
  Group *self = (Group *)g->more->group;
  leave_list(self, g);
  g->more->group = NULL;
  if (unlikely(g->failed)) note_failure(self, g);
  self->count--;
  if (self->limited) semrelease(&self->slots, 1);
  if (self->count == 0 && self->waiters.first) waitq_wakeall(&self->waiters);
  Py_DECREF((PyObject *)g);
  Py_DECREF((PyObject *)self);
}

/* In a forked child, where g is not: no code may run yet, so what they hold of each other stays. */
void group_member_lost(Goroutine *g) {
  Group *self = (Group *)g->more->group;
  leave_list(self, g);
  g->more->group = NULL;
  self->count--;
  self->waiters = self->slots.q = (waitq){NULL, NULL};
  if (self->limited) self->slots.value++;
}

static bool is_open_else(Group *self, const char *before, const char *ended) {
  if (likely(self->state == OPEN)) return true;
  PyErr_SetString(PyExc_RuntimeError, self->state == ENDED ? ended : before);
  return false;
}

static bool is_open(Group *self) {
  return is_open_else(self, "a group starts goroutines inside of its `with` block",
                      "the group has ended: nobody would wait for a new member");
}

/* It is counted, and has a slot.  NULL: exception set. */
static Goroutine *start(Group *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  if (!runtime_ensure()) return NULL;
  Goroutine *g = goroutine_new(args, nargs, kwnames);
  if (!g) return NULL;
  if (!extras_of(g)) return goroutine_drop(g);
  if (!(g = goroutine_launch(g))) return NULL;
  join_list(self, g);
  if (unlikely(self->aborted)) cancel_one(g, self->reason, NULL); /* it has none yet */
  return g;
}

/* 1: a slot is ours; 0: there is none now; -1: exception set. */
static int take_slot(Group *self, bool block) {
  for (wake_t r; (r = semacquire(&self->slots, waitReasonSemacquire, block, 0)) != WAKE_OK;) {
    if (r == WAKE_WOULDBLOCK) return 0;
    if (wake_error(r) != 0) return -1;
  }
  if (is_open(self)) return 1;
  semrelease(&self->slots, 1);
  return -1;
}

static PyObject *go(const char *name, PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, bool block) {
  Group *self = (Group *)op;
  if (nargs < 1) {
    PyErr_Format(PyExc_TypeError, "%s() needs fn, a callable", name);
    return NULL;
  }
  if (!callable_arg(name, "fn", args[0]) || !is_open(self)) return NULL;
  if (self->limited) {
    int slot = take_slot(self, block);
    if (slot <= 0) return slot < 0 ? NULL : Py_NewRef(Py_False);
  }
  self->count++; /* before memory is asked for: the collector may run anything */
  Goroutine *g = start(self, args, nargs, kwnames);
  if (likely(g != NULL)) return (PyObject *)g;
  self->count--;
  if (self->limited) semrelease(&self->slots, 1);
  if (self->count == 0 && self->waiters.first) waitq_wakeall(&self->waiters);
  return NULL;
}

static PyObject *group_go(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  return go("go", op, args, nargs, kwnames, true);
}
static PyObject *group_try_go(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  return go("try_go", op, args, nargs, kwnames, false);
}

static PyObject *group_cancel(PyObject *op, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"reason", NULL};
  PyObject *reason = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", names, &reason)) return NULL;
  if (!is_open_else((Group *)op, "a group is cancelled inside of its `with` block",
                    "the group has ended: there is nothing to cancel"))
    return NULL;
  abort_all((Group *)op, reason);
  Py_RETURN_NONE;
}

/* ---- the block -------------------------------------------------------------------------------------------------- */

static PyObject *group_enter(PyObject *op, PyObject *Py_UNUSED(ignored)) {
  Group *self = (Group *)op;
  Goroutine *g = current_handle();
  if (self->state != UNUSED) {
    PyErr_SetString(PyExc_RuntimeError, "a group is entered once");
    return NULL;
  }
  if (!above.cancel_learn()) return NULL;
  if (g && !self->unguarded && scope_enter(&self->s, g, 0) < 0) return NULL;
  self->state = OPEN;
  return Py_NewRef(op);
}

static bool is_cancelled(PyObject *exc) { return exc && PyErr_GivenExceptionMatches(exc, errs.Cancelled); }

/* What the others are told: why. */
static void abort_for(Group *self, PyObject *exc) {
  PyObject *reason = is_cancelled(exc) ? PyObject_GetAttrString(exc, "reason") : Py_NewRef(exc);
  if (!reason) PyErr_Clear();
  abort_all(self, reason ? reason : Py_None);
  Py_XDECREF(reason);
}

/* What ends the wait is kept: each cancel of the goroutine that waits, the first of anything else.  false: it cannot wait
 * (no memory, no thread), which is in *other. */
static bool wait_for_members(Group *self, PyObject **cancels, PyObject **other) {
  while (self->count > 0) {
    wake_t r = waitq_wait(&self->waiters, waitReasonWaitGroupWait, 0);
    if (r == WAKE_OK || wake_error(r) == 0) continue;
    PyObject *exc = take_exception();
    if (is_cancelled(exc)) {
      if (!append(cancels, exc)) PyErr_Clear();
    } else if (!*other) {
      *other = Py_NewRef(exc);
    }
    abort_for(self, exc);
    Py_DECREF(exc);
    if (r == WAKE_NOMEM || r == WAKE_NOTHREAD) return false;
  }
  return true;
}

/* What is raised, as _api/group.py has it.  *raised NULL: nothing but a cancel from outside, if there is one.  false:
 * exception set. */
static bool settle(Group *self, PyObject *body, PyObject *other, PyObject **raised) {
  PyObject *fn = helper("_api.group", "settle");
  PyObject *r = fn ? PyObject_CallFunction(fn, "OOOO", body ? body : Py_None, other ? other : Py_None,
                                           self->failed ? self->failed : Py_None, self->cancels ? self->cancels : Py_None)
                   : NULL;
  Py_XDECREF(fn);
  if (!r) return false;
  *raised = r == Py_None ? NULL : Py_NewRef(r);
  Py_DECREF(r);
  return true;
}

/* Cancels of this goroutine that something else goes before: they are pending again. */
static void put_back(PyObject *cancels, Py_ssize_t from) {
  Goroutine *g = current_handle();
  for (Py_ssize_t i = from; g && cancels && i < PyList_GET_SIZE(cancels); i++) cancel_again(g, PyList_GET_ITEM(cancels, i));
}

/* The end of a block that was not left in peace.  cancels: from outside, while it waited.  One is raised, if there is
 * nothing else to tell; the one with which the body was left goes before. */
static PyObject *end(Group *self, PyObject *body, PyObject *cancels, PyObject *other, bool own) {
  PyObject *raised = NULL, *cancel = NULL, *left = body; /* the block is being left with that, and goes on so */
  bool first = !is_cancelled(body) && cancels;
  if (first) {
    cancel = PyList_GET_ITEM(cancels, 0);
  } else if (is_cancelled(body)) {
    cancel = body;
    body = NULL;
  }
  bool settled = settle(self, body, other, &raised);
  put_back(cancels, first);
  if (cancel && (!settled || raised) && current_handle()) cancel_again(current_handle(), cancel);
  if (!settled) return NULL;
  if (!raised) raised = Py_XNewRef(cancel);
  if (!raised) return PyBool_FromLong(own);
  if (raised != left) {
    raise_exception(raised);
    return NULL;
  }
  Py_DECREF(raised);
  Py_RETURN_FALSE;
}

/* (type, exception, traceback) */
static PyObject *group_exit(PyObject *op, PyObject *const *args, Py_ssize_t nargs) {
  Group *self = (Group *)op;
  if (nargs != 3 || self->state != OPEN) {
    PyErr_SetString(PyExc_RuntimeError, "the group is not entered");
    return NULL;
  }
  PyObject *body = args[1] == Py_None ? NULL : args[1], *cancels = NULL, *other = NULL;
  bool own = scope_leave(&self->s, body);
  if (own) body = NULL;
  if (body) abort_for(self, body);
  bool waited = wait_for_members(self, &cancels, &other);
  self->state = ENDED;
  PyObject *r = NULL;
  if (unlikely(!waited))
    raise_exception(Py_NewRef(other));
  else if (unlikely(body || cancels || other || self->failed))
    r = end(self, body, cancels, other, own);
  else
    r = PyBool_FromLong(own);
  Py_XDECREF(cancels);
  Py_XDECREF(other);
  return r;
}

/* ---- gather ----------------------------------------------------------------------------------------------------- */

/* Leaves the block, with the exception that is set, if one is.  -1: exception set. */
static int leave(PyObject *group) {
  PyObject *exc = PyErr_Occurred() ? take_exception() : NULL;
  PyObject *how[] = {exc ? (PyObject *)Py_TYPE(exc) : Py_None, exc ? exc : Py_None, Py_None};
  PyObject *r = group_exit(group, how, 3);
  if (r && exc) raise_exception(Py_NewRef(exc)); /* it goes on */
  bool ok = r && !exc;
  Py_XDECREF(r);
  Py_XDECREF(exc);
  return ok ? 0 : -1;
}

static PyObject *results(PyObject *members) {
  Py_ssize_t n = PyTuple_GET_SIZE(members);
  PyObject *all = PyTuple_New(n);
  for (Py_ssize_t i = 0; all && i < n; i++) {
    PyObject *value = PyObject_CallMethod(PyTuple_GET_ITEM(members, i), "result", NULL);
    if (!value) Py_CLEAR(all);
    if (all) PyTuple_SET_ITEM(all, i, value);
  }
  return all;
}

/* In C, so that the code which has called it is said to have created them. */
static PyObject *py_gather(PyObject *module, PyObject *const *args, Py_ssize_t n) {
  (void)module;
  for (Py_ssize_t i = 0; i < n; i++)
    if (!callable_arg("gather", "thunks", args[i])) return NULL;
  PyObject *group = group_make(0, false), *members = group ? PyTuple_New(n) : NULL, *all = NULL;
  PyObject *entered = members ? group_enter(group, NULL) : NULL;
  bool going = entered != NULL;
  for (Py_ssize_t i = 0; going && i < n; i++) {
    PyObject *g = group_go(group, &args[i], 1, NULL);
    going = g != NULL;
    if (g) PyTuple_SET_ITEM(members, i, g);
  }
  if (entered && leave(group) == 0) all = results(members);
  Py_XDECREF(entered);
  Py_XDECREF(members);
  Py_XDECREF(group);
  return all;
}

/* ---- the type --------------------------------------------------------------------------------------------------- */

static PyObject *group_len(PyObject *op, void *Py_UNUSED(c)) { return PyLong_FromSsize_t(((Group *)op)->count); }

static PyObject *group_repr(PyObject *op) {
  static const char *const states[] = {"not entered", "open", "ended"};
  Group *self = (Group *)op;
  return PyUnicode_FromFormat("<gmprt.Group %s, %zd members%s at %p>", states[self->state], self->count,
                              self->aborted ? ", cancelled" : "", self);
}

static int group_traverse(PyObject *op, visitproc visit, void *arg) {
  Group *self = (Group *)op;
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(self->reason);
  Py_VISIT(self->failed);
  Py_VISIT(self->cancels);
  for (Goroutine *g = self->members; g; g = g->more->gnext) Py_VISIT(g);
  return scope_traverse(&self->s, visit, arg);
}
static int group_clear(PyObject *op) {
  Group *self = (Group *)op;
  Py_CLEAR(self->reason);
  Py_CLEAR(self->failed);
  Py_CLEAR(self->cancels);
  scope_clear(&self->s);
  return 0;
}
static void group_dealloc(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  Group *self = (Group *)op;
  PyObject_GC_UnTrack(op);
  if (self->weakrefs) PyObject_ClearWeakRefs(op);
  scope_leave(&self->s, NULL);
  group_clear(op);
  PyObject_GC_Del(op);
  Py_DECREF(type);
}

static PyMethodDef group_methods[] = {
    {"go", FN(group_go), KW,
     "go($self, fn, /, *args, **kwargs)\n--\n\nStart a member that runs fn(*args, **kwargs); waits while there are as many\n"
     "as the limit allows. RuntimeError when the group has ended."},
    {"try_go", FN(group_try_go), KW,
     "try_go($self, fn, /, *args, **kwargs)\n--\n\nThe same without waiting: False at the limit."},
    {"cancel", FN(group_cancel), METH_VARARGS | METH_KEYWORDS,
     "cancel($self, reason=None)\n--\n\nCancel all members, those that are still to come, and the body of the block."},
    {"__enter__", group_enter, METH_NOARGS, NULL},
    {"__exit__", FN(group_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef group_getset[] = {{"count", group_len, NULL, "members that have not ended", NULL},
                                     {NULL, NULL, NULL, NULL, NULL}};
static PyMemberDef group_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Group, weakrefs), READONLY, NULL}, {NULL, 0, 0, 0, NULL}};
static PyType_Slot group_type_slots[] = {
    {Py_tp_doc, "Group(limit=None)\n--\n\nGoroutines that end before its `with` block does; the first failure cancels the others."},
    {Py_tp_new, group_new},
    {Py_tp_dealloc, group_dealloc},
    {Py_tp_traverse, group_traverse},
    {Py_tp_clear, group_clear},
    {Py_tp_methods, group_methods},
    {Py_tp_getset, group_getset},
    {Py_tp_members, group_members},
    {Py_tp_repr, group_repr},
    {0, NULL}};
PyType_Spec group_spec = {"gmprt.Group", sizeof(Group), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, group_type_slots};

PyMethodDef group_functions[] = {
    {"gather", FN(py_gather), METH_FASTCALL,
     "gather(*thunks)\n--\n\nCall them all, each in a goroutine of its own; their results, in order. The first failure\n"
     "cancels the others, and is raised."},
    {"crew", FN(py_crew), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL}};
