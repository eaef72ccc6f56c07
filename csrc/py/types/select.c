/* select.c - select(), its cases Recv and Send, the reusable Select, and what it returns.
 *
 * The work is the runtime's selectgo over hosted channels; here cases are checked and values are owned:
 * each send case holds a reference during the call, which the channel takes over if that case fires. */
#include "sched/chaos.h"
#include "py/host/errors.h"
#include "py/types/args.h"
#include "py/types/chan.h"

PyTypeObject *Recv_Type, *Send_Type, *Select_Type, *Selected_Type;

enum { FEW = 8 };

/* A case object, Recv(ch) or Send(ch, value); ch is NULL for None, Go's nil channel. */
typedef struct Case {
  PyObject_HEAD
  Chan *ch;
  PyObject *value;
} Case;

typedef struct Select {
  PyObject_VAR_HEAD
  vectorcallfunc call;
  PyObject *cases[1];
} Select;

/* ---- cases -------------------------------------------------------------------------------------------- */

/* The channel behind a Chan or the right view; NULL and no exception for None. */
static Chan *channel_of(PyObject *o, bool send, bool *bad) {
  *bad = false;
  if (Py_TYPE(o) == Chan_Type) return (Chan *)o;
  if (Py_TYPE(o) == (send ? SendView_Type : RecvView_Type)) return ((View *)o)->ch;
  if (o == Py_None) return NULL;
  *bad = true;
  PyErr_Format(PyExc_TypeError, "a channel that can %s is wanted, not %.100s",
               send ? "send" : "receive", Py_TYPE(o)->tp_name);
  return NULL;
}

static PyObject *case_make(PyTypeObject *type, PyObject *ch, PyObject *value) {
  bool bad;
  Chan *c = channel_of(ch, value != NULL, &bad);
  if (bad) return NULL;
  Case *self = (Case *)type->tp_alloc(type, 0);
  if (!self) return NULL;
  self->ch = (Chan *)Py_XNewRef((PyObject *)c);
  self->value = Py_XNewRef(value);
  return (PyObject *)self;
}

static PyObject *recv_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"ch", NULL};
  PyObject *ch;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Recv", names, &ch)) return NULL;
  return case_make(type, ch, NULL);
}

static PyObject *send_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"ch", "value", NULL};
  PyObject *ch, *value;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:Send", names, &ch, &value)) return NULL;
  return case_make(type, ch, value);
}

static int case_traverse(PyObject *op, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(((Case *)op)->ch);
  Py_VISIT(((Case *)op)->value);
  return 0;
}
static int case_clear(PyObject *op) {
  Py_CLEAR(((Case *)op)->ch); /* then it is a case of a nil channel */
  Py_CLEAR(((Case *)op)->value);
  return 0;
}
static void case_dealloc(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  PyObject_GC_UnTrack(op);
  Py_TRASHCAN_BEGIN(op, case_dealloc)
  case_clear(op);
  type->tp_free(op);
  Py_DECREF(type);
  Py_TRASHCAN_END
}
static PyObject *case_repr(PyObject *op) {
  Case *self = (Case *)op;
  PyObject *ch = self->ch ? (PyObject *)self->ch : Py_None;
  if (Py_TYPE(op) == Recv_Type) return PyUnicode_FromFormat("Recv(%R)", ch);
  return PyUnicode_FromFormat("Send(%R, %R)", ch, self->value ? self->value : Py_None);
}

static PyMethodDef case_methods[] = {
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "for type checkers."},
    {NULL, NULL, 0, NULL}};
#define CASE_SLOTS(maker, doc) \
  {Py_tp_doc, doc}, {Py_tp_new, maker}, {Py_tp_dealloc, case_dealloc}, \
      {Py_tp_traverse, case_traverse}, {Py_tp_clear, case_clear}, {Py_tp_repr, case_repr}, \
      {Py_tp_methods, case_methods}
static PyType_Slot recv_slots[] = {
    CASE_SLOTS(recv_new, "Recv(ch)\n--\n\nA case of select: receive from ch. None: never ready."), {0, NULL}};
static PyType_Slot send_slots[] = {
    CASE_SLOTS(send_new, "Send(ch, value)\n--\n\nA case of select: send value to ch. None: never ready."),
    {0, NULL}};
#define CASE_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE)
PyType_Spec recv_spec = {"gmprt.Recv", sizeof(Case), 0, CASE_FLAGS, recv_slots};
PyType_Spec send_spec = {"gmprt.Send", sizeof(Case), 0, CASE_FLAGS, send_slots};

/* One argument of select: a case object, or a bare channel, which means receive. */
static int parse_case(PyObject *o, scase *k, PyObject **value) {
  bool bad;
  Chan *ch;
  *value = NULL;
  k->elem = value;
  k->send = false;
  if (Py_TYPE(o) == Recv_Type) {
    ch = ((Case *)o)->ch;
  } else if (Py_TYPE(o) == Send_Type) {
    ch = ((Case *)o)->ch;
    k->send = true;
    *value = Py_XNewRef(((Case *)o)->value);
  } else {
    ch = channel_of(o, false, &bad);
    if (bad) {
      PyErr_Format(PyExc_TypeError,
                   "select() takes channels, Recv(ch), Send(ch, value) and None, not %.100s",
                   Py_TYPE(o)->tp_name);
      return -1;
    }
  }
  k->c = ch ? &ch->c : NULL;
  return 0;
}

/* ---- the result ------------------------------------------------------------------------------------------ */

/* A tuple (index, value, ok) with a fourth slot behind its length: the channel of the case that fired. */
enum { SELECTED_ITEMS = 4 }; /* index, value, ok, channel; the length says 3 */

/* Without contents, and unknown to the collector.  Made before the wait: a value that has been taken could not be given
 * back. */
static PyObject *selected_make(void) {
  PyTupleObject *t = PyObject_GC_NewVar(PyTupleObject, Selected_Type, SELECTED_ITEMS);
  if (!t) return NULL;
  memset(t->ob_item, 0, SELECTED_ITEMS * sizeof t->ob_item[0]);
  tuple_without_hash(t);
  return (PyObject *)t;
}

/* n, value and channel are taken over. */
static void selected_set(PyObject *op, PyObject *n, PyObject *value, bool ok, PyObject *channel) {
  PyObject **item = ((PyTupleObject *)op)->ob_item;
  item[0] = n;
  item[1] = value;
  item[2] = Py_NewRef(ok ? Py_True : Py_False);
  item[3] = channel;
  Py_SET_SIZE(op, 3);
  PyObject_GC_Track(op);
}

static int selected_traverse(PyObject *op, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(op));
  for (int i = 0; i < SELECTED_ITEMS; i++) Py_VISIT(((PyTupleObject *)op)->ob_item[i]);
  return 0;
}
static void selected_free(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  for (int i = 0; i < SELECTED_ITEMS; i++) Py_XDECREF(((PyTupleObject *)op)->ob_item[i]);
  type->tp_free(op);
  Py_DECREF(type);
}
static void selected_dealloc(PyObject *op) {
  PyObject *value = ((PyTupleObject *)op)->ob_item[1];
  PyObject_GC_UnTrack(op);
  if (likely(!value || !PyType_IS_GC(Py_TYPE(value)))) { /* no chain of results that hold results */
    selected_free(op);
    return;
  }
  Py_TRASHCAN_BEGIN(op, selected_dealloc)
  selected_free(op);
  Py_TRASHCAN_END
}

static PyObject *selected_get(PyObject *op, PyObject *arg) {
  PyTupleObject *t = (PyTupleObject *)op;
  bool bad;
  Chan *ch = channel_of(arg, false, &bad);
  if (bad) return NULL;
  if (!ch || (PyObject *)ch != t->ob_item[3]) {
    PyErr_SetString(PyExc_ValueError, "another case fired");
    return NULL;
  }
  if (t->ob_item[2] != Py_True) {
    PyErr_SetString(errs.EndOfChannel, "channel is closed and drained");
    return NULL;
  }
  return Py_NewRef(t->ob_item[1]);
}

static PyObject *selected_field(PyObject *op, void *i) {
  PyObject *o = ((PyTupleObject *)op)->ob_item[(intptr_t)i];
  return Py_NewRef(o ? o : Py_None);
}

static PyObject *selected_repr(PyObject *op) {
  PyObject **v = ((PyTupleObject *)op)->ob_item;
  return PyUnicode_FromFormat("Selected(index=%R, value=%R, ok=%R)", v[0], v[1], v[2]);
}

static PyMethodDef selected_methods[] = {
    {"get", selected_get, METH_O,
     "get($self, ch, /)\n--\n\nThe value received from ch. ValueError if another case fired, EndOfChannel if ch\n"
     "was closed."},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "for type checkers."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef selected_getset[] = {
    {"index", selected_field, NULL, "which case fired, -1: none was ready", (void *)0},
    {"value", selected_field, NULL, "what was received, else None", (void *)1},
    {"ok", selected_field, NULL, "False: received because the channel is closed, or index is -1", (void *)2},
    {"channel", selected_field, NULL, "the channel of the case that received", (void *)3},
    {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot selected_slots[] = {{Py_tp_doc, "What select() returns: (index, value, ok)."},
                                       {Py_tp_dealloc, selected_dealloc},
                                       {Py_tp_traverse, selected_traverse},
                                       {Py_tp_methods, selected_methods},
                                       {Py_tp_getset, selected_getset},
                                       {Py_tp_repr, selected_repr},
                                       {0, NULL}};
PyType_Spec selected_spec = {"gmprt.Selected", 0, 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                                 Py_TPFLAGS_DISALLOW_INSTANTIATION,
                             selected_slots};

/* ---- select ------------------------------------------------------------------------------------------------ */

/* Are there any? -1: exception set. */
static int poll_timers(scase *k, Py_ssize_t n) {
  int any = 0;
  for (Py_ssize_t i = 0; i < n; i++) {
    if (!k[i].c || k[i].send) continue;
    Chan *ch = containerof(k[i].c, Chan, c);
    if (likely(!ch->is_timer)) continue;
    if (!chan_timer_poll(ch)) return -1;
    any = 1;
  }
  return any;
}

static int64_t timers_deadline(scase *k, Py_ssize_t n, int64_t deadline) {
  for (Py_ssize_t i = 0; i < n; i++)
    if (k[i].c && !k[i].send) deadline = chan_timer_deadline(containerof(k[i].c, Chan, c), deadline);
  return deadline;
}

/* -2: exception set. */
static int32_t select_wait(scase *k, Py_ssize_t n, patience p, wake_t *r) {
  for (;;) {
    int timers = poll_timers(k, n);
    if (unlikely(timers < 0)) return -2;
    int64_t deadline = unlikely(timers) ? timers_deadline(k, n, p.deadline) : p.deadline;
    int32_t index = selectgo(k, (int32_t)n, p.block, deadline, true, r);
    if (index >= 0 || *r == WAKE_WOULDBLOCK) return index;
    if (*r == WAKE_TIMEOUT && deadline != p.deadline) continue;
    if (wake_error(*r) != 0) return -2;
  }
}

/* false: exception set. */
static bool outcome(PyObject *selected, scase *k, PyObject **values, int32_t index, wake_t r, bool dflt) {
  if (unlikely(index == -2)) return false;
  if (unlikely(index == -1)) {
    if (dflt)
      selected_set(selected, PyLong_FromLong(-1), Py_NewRef(Py_None), false, NULL); /* the interpreter keeps -1 */
    else
      PyErr_SetString(errs.Timeout, "timed out");
    return dflt;
  }
  bool sent = k[index].send, received = !sent && r == WAKE_OK;
  if (unlikely(sent && r == WAKE_CLOSED)) {
    PyErr_SetString(errs.ChannelClosed, "send on closed channel");
    return false;
  }
  PyObject *value = received ? values[index] : Py_NewRef(Py_None);
  if (sent || received) values[index] = NULL; /* the channel's now, or the result's */
  PyObject *n = PyLong_FromLong(index); /* cannot fail up to 256: the interpreter keeps those */
  if (unlikely(!n)) {
    Py_DECREF(value);
    return false;
  }
  Chan *ch = sent ? NULL : containerof(k[index].c, Chan, c);
  selected_set(selected, n, value, sent || received, Py_XNewRef(ch));
  return true;
}

static PyObject *do_select(PyObject *const *cases, Py_ssize_t n, patience p, bool dflt) {
  scase few[FEW], *k = few;
  PyObject *few_values[FEW], **values = few_values;
  if (n > UINT16_MAX) {
    PyErr_SetString(PyExc_ValueError, "select() takes at most 65535 cases");
    return NULL;
  }
  if (n > FEW) {
    k = PyMem_Malloc((size_t)n * (sizeof *k + sizeof *values));
    if (!k) return PyErr_NoMemory();
    values = (PyObject **)(k + n);
  }
  Py_ssize_t parsed = 0;
  PyObject *selected = selected_make();
  while (selected && parsed < n && parse_case(cases[parsed], &k[parsed], &values[parsed]) == 0) parsed++;
  bool ok = selected && parsed == n;
  if (ok) {
    wake_t r = WAKE_OK;
    int32_t index = select_wait(k, n, p, &r);
    for (Py_ssize_t i = 0; i < n; i++) /* receive slots hold something only if they fired */
      if (!k[i].send && i != index) values[i] = NULL;
    ok = outcome(selected, k, values, index, r, dflt);
  }
  if (unlikely(!ok)) Py_CLEAR(selected);
  for (Py_ssize_t i = 0; i < parsed; i++) Py_XDECREF(values[i]);
  if (k != few) PyMem_Free(k);
  return selected;
}

static bool names_default(PyObject *kwnames) {
  for (Py_ssize_t i = kwnames ? PyTuple_GET_SIZE(kwnames) : 0; i-- > 0;)
    if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), "default") == 0) return true;
  return false;
}

/* keyword arguments timeout and default */
static int parse_options(PyObject *const *kwvalues, PyObject *kwnames, patience *p, bool *dflt) {
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  if (unlikely(chaos_on) && !names_default(kwnames)) chaos_point(true);
  *p = (patience){true, 0};
  *dflt = false;
  for (Py_ssize_t i = 0; i < nkw; i++) {
    PyObject *name = PyTuple_GET_ITEM(kwnames, i);
    if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
      if (patience_parse("select", kwvalues[i], p) < 0) return -1;
    } else if (PyUnicode_CompareWithASCIIString(name, "default") == 0) {
      int t = PyObject_IsTrue(kwvalues[i]);
      if (t < 0) return -1;
      *dflt = t;
    } else {
      PyErr_Format(PyExc_TypeError, "select() got an unexpected keyword argument %R", name);
      return -1;
    }
  }
  if (*dflt) *p = (patience){false, 0};
  return 0;
}

static PyObject *py_select(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames) {
  (void)module;
  patience p;
  bool dflt;
  if (parse_options(args + nargs, kwnames, &p, &dflt) < 0) return NULL;
  return do_select(args, nargs, p, dflt);
}

/* ---- Select: cases checked once -------------------------------------------------------------------------------- */

static PyObject *select_call(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
  Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
  if (nargs > 0) {
    PyErr_SetString(PyExc_TypeError, "a Select takes timeout and default, by name");
    return NULL;
  }
  patience p;
  bool dflt;
  if (parse_options(args, kwnames, &p, &dflt) < 0) return NULL;
  return do_select(((Select *)op)->cases, Py_SIZE(op), p, dflt);
}

static PyObject *select_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  if (kwargs && PyDict_GET_SIZE(kwargs) > 0) {
    PyErr_SetString(PyExc_TypeError, "Select() takes cases only; timeout and default go to the call");
    return NULL;
  }
  Py_ssize_t n = PyTuple_GET_SIZE(args);
  for (Py_ssize_t i = 0; i < n; i++) {
    scase k;
    PyObject *value;
    if (parse_case(PyTuple_GET_ITEM(args, i), &k, &value) < 0) return NULL;
    Py_XDECREF(value);
  }
  Select *self = (Select *)type->tp_alloc(type, n);
  if (self) self->call = select_call;
  for (Py_ssize_t i = 0; self && i < n; i++) self->cases[i] = Py_NewRef(PyTuple_GET_ITEM(args, i));
  return (PyObject *)self;
}

static int select_traverse(PyObject *op, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(op));
  for (Py_ssize_t i = 0; i < Py_SIZE(op); i++) Py_VISIT(((Select *)op)->cases[i]);
  return 0;
}
static void select_dealloc(PyObject *op) {
  PyTypeObject *type = Py_TYPE(op);
  PyObject_GC_UnTrack(op);
  Py_TRASHCAN_BEGIN(op, select_dealloc)
  for (Py_ssize_t i = 0; i < Py_SIZE(op); i++) Py_XDECREF(((Select *)op)->cases[i]);
  type->tp_free(op);
  Py_DECREF(type);
  Py_TRASHCAN_END
}
static PyMemberDef select_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Select, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};
static PyType_Slot select_slots[] = {
    {Py_tp_doc, "Select(*cases)\n--\n\nA select built once and called many times: s(timeout=None, default=False)."},
    {Py_tp_new, select_new},
    {Py_tp_methods, case_methods},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, select_members},
    {Py_tp_dealloc, select_dealloc},
    {Py_tp_traverse, select_traverse},
    {0, NULL}};
PyType_Spec select_spec = {"gmprt.Select", offsetof(Select, cases), sizeof(PyObject *),
                           CASE_FLAGS | Py_TPFLAGS_HAVE_VECTORCALL, select_slots};

PyMethodDef select_functions[] = {
    {"select", (PyCFunction)(void (*)(void))py_select, METH_FASTCALL | METH_KEYWORDS,
     "select(*cases, timeout=None, default=False)\n--\n\nGo's select: exactly one case takes effect, a random\n"
     "one among the ready. Waits unless default; Timeout after timeout seconds; a send to a closed\n"
     "channel raises ChannelClosed. Returns Selected(index, value, ok)."},
    {NULL, NULL, 0, NULL}};
