/* chan.c - Chan, its one-direction views.
 *
 * The channel is the runtime's hchan with `hosted` set: the GIL is its lock, its elements are owned
 * references.  A value belongs to the channel while buffered (tp_traverse shows it to the collector), to
 * the waiter while its sender is parked, and is handed over exactly once.  A parked sender's frame holds
 * the channel, so a channel with waiters is never garbage.  Those that are sent the time: timerchan.c. */
#include "sched/chaos.h"
#include "py/host/errors.h"
#include "py/types/args.h"
#include "py/types/chan.h"

PyTypeObject *Chan_Type, *SendView_Type, *RecvView_Type;

/* ---- send and receive ----------------------------------------------------------------------------------- */

static PyObject *raise_closed(void) {
  PyErr_SetString(errs.ChannelClosed, "send on closed channel");
  return NULL;
}

static force_inline PyObject *chan_send(Chan *ch, PyObject *value, patience p) {
  Py_INCREF(value);
  for (;;) {
    wake_t r = chansend(&ch->c, &value, p.block, p.deadline, true);
    if (likely(r == WAKE_OK)) Py_RETURN_NONE;
    if (r == WAKE_CLOSED) {
      Py_DECREF(value);
      return raise_closed();
    }
    if (wake_error(r) != 0) {
      Py_DECREF(value);
      return NULL;
    }
  }
}

/* WAKE_OK, WAKE_CLOSED, or an exception is set. */
static force_inline wake_t chan_recv(Chan *ch, PyObject **value, patience p) {
  for (;;) {
    if (unlikely(ch->is_timer) && !chan_timer_poll(ch)) return WAKE_NOMEM;
    int64_t deadline = unlikely(ch->when != 0) ? chan_timer_deadline(ch, p.deadline) : p.deadline;
    wake_t r = chanrecv(&ch->c, value, p.block, deadline, true);
    if (likely(r == WAKE_OK) || r == WAKE_CLOSED) return r;
    if (r == WAKE_TIMEOUT && deadline != p.deadline) continue; /* the timer's time, not ours */
    if (wake_error(r) != 0) return r;
  }
}

/* (timeout=None), keyword only.  A timeout of 0 polls and raises Timeout, not WouldBlock. */
static int parse_timeout(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         Py_ssize_t positional, patience *p) {
  p->block = true;
  p->deadline = 0;
  if (nargs != positional) {
    PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd positional argument%s (%zd given)", name,
                 positional, positional == 1 ? "" : "s", nargs);
    return -1;
  }
  Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
  if (likely(nkw == 0)) return 0;
  PyObject *kw = PyTuple_GET_ITEM(kwnames, 0);
  if (nkw > 1 || PyUnicode_CompareWithASCIIString(kw, "timeout") != 0) {
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", name,
                 PyTuple_GET_ITEM(kwnames, nkw - 1));
    return -1;
  }
  return patience_parse(name, args[nargs], p);
}

static void polled_to_timeout(patience p) {
  if (!p.block && PyErr_ExceptionMatches(errs.WouldBlock)) {
    PyErr_Clear();
    PyErr_SetString(errs.Timeout, "timed out");
  }
}

/* send(value) and recv(), without a time-out, have a way of their own: on the general one an item through a buffer had 260
 * instructions of ours, on this 175. */
static const patience for_ever = {true, 0};

static noinline PyObject *send_within(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  patience p;
  if (parse_timeout("send", args, nargs, kwnames, 1, &p) < 0) return NULL;
  PyObject *r = chan_send(chan_of(self), args[0], p);
  if (unlikely(!r)) polled_to_timeout(p);
  return r;
}

static PyObject *py_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  chaos_point(true);
  if (likely(nargs == 1 && !kwnames)) return chan_send(chan_of(self), args[0], for_ever);
  return send_within(self, args, nargs, kwnames);
}

static PyObject *py_send_nowait(PyObject *self, PyObject *value) {
  return chan_send(chan_of(self), value, (patience){false, 0});
}

static PyObject *end_of_channel(wake_t r) {
  if (r == WAKE_CLOSED) PyErr_SetString(errs.EndOfChannel, "channel is closed and drained");
  return NULL;
}

static noinline PyObject *recv_within(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  patience p;
  if (parse_timeout("recv", args, nargs, kwnames, 0, &p) < 0) return NULL;
  PyObject *value;
  wake_t r = chan_recv(chan_of(self), &value, p);
  if (likely(r == WAKE_OK)) return value;
  if (r != WAKE_CLOSED) polled_to_timeout(p);
  return end_of_channel(r);
}

static PyObject *py_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames) {
  chaos_point(true);
  if (unlikely(nargs != 0 || kwnames)) return recv_within(self, args, nargs, kwnames);
  PyObject *value;
  wake_t r = chan_recv(chan_of(self), &value, for_ever);
  return likely(r == WAKE_OK) ? value : end_of_channel(r);
}

static PyObject *py_recv_nowait(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  PyObject *value;
  wake_t r = chan_recv(chan_of(self), &value, (patience){false, 0});
  return r == WAKE_OK ? value : end_of_channel(r);
}

static PyObject *py_recv_ok(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames) {
  chaos_point(true);
  patience p;
  if (parse_timeout("recv_ok", args, nargs, kwnames, 0, &p) < 0) return NULL;
  PyObject *pair = PyTuple_Pack(2, Py_None, Py_False); /* now: a value that has been taken could not be given back */
  if (!pair) return NULL;
  PyObject *value;
  wake_t r = chan_recv(chan_of(self), &value, p);
  if (r == WAKE_CLOSED) return pair;
  if (r != WAKE_OK) {
    Py_DECREF(pair);
    polled_to_timeout(p);
    return NULL;
  }
  Py_SETREF(PyTuple_GET_ITEM(pair, 0), value);
  Py_SETREF(PyTuple_GET_ITEM(pair, 1), Py_NewRef(Py_True));
  if (!PyObject_GC_IsTracked(pair)) PyObject_GC_Track(pair); /* a collection took it for a pair of constants */
  return pair;
}

static PyObject *py_next(PyObject *self) {
  chaos_point(true);
  PyObject *value;
  wake_t r = chan_recv(chan_of(self), &value, for_ever);
  return likely(r == WAKE_OK) ? value : NULL; /* NULL without exception ends the loop */
}

static PyObject *py_close(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  if (chanclose(&chan_of(self)->c) == WAKE_OK) Py_RETURN_NONE;
  PyErr_SetString(errs.ChannelClosed, "close of closed channel");
  return NULL;
}

/* ---- the type --------------------------------------------------------------------------------------------- */

Chan *chan_make(PyTypeObject *type, size_t capacity, PyObject *name) {
  Chan *ch = (Chan *)type->tp_alloc(type, 0);
  if (!ch) return NULL;
  if (!chan_init(&ch->c, sizeof(PyObject *), capacity, true)) {
    Py_DECREF(ch);
    PyErr_Format(PyExc_MemoryError, "no memory for a channel with a capacity of %zu", capacity);
    return NULL;
  }
  ch->name = Py_XNewRef(name);
  return ch;
}

static PyObject *chan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"capacity", "name", NULL};
  PyObject *cap = NULL, *name = Py_None;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$O:Chan", names, &cap, &name)) return NULL;
  if (name != Py_None && !PyUnicode_Check(name)) {
    PyErr_Format(PyExc_TypeError, "Chan(): name must be a str or None, not %.100s", Py_TYPE(name)->tp_name);
    return NULL;
  }
  int64_t n = 0;
  if (cap && !integer_arg("Chan", "capacity", cap, 0, PTRDIFF_MAX / (int64_t)sizeof(PyObject *), &n)) return NULL;
  return (PyObject *)chan_make(type, (size_t)n, name == Py_None ? NULL : name);
}

static PyObject **buffered(Chan *ch, size_t i) {
  size_t at = ch->c.recvx + i;
  return (PyObject **)chanbuf(&ch->c, at < ch->c.bufsiz ? at : at - ch->c.bufsiz);
}

static int chan_traverse(PyObject *self, visitproc visit, void *arg) {
  Chan *ch = (Chan *)self;
  Py_VISIT(Py_TYPE(self));
  size_t n = ch->c.buf ? load_rlx(&ch->c.qcount) : 0;
  for (size_t i = 0; i < n; i++) Py_VISIT(*buffered(ch, i));
  return 0;
}

void drop_buffer(Chan *ch) {
  while (load_rlx(&ch->c.qcount) > 0) {
    PyObject *v;
    if (chanrecv(&ch->c, &v, false, 0, true) != WAKE_OK) return;
    Py_DECREF(v);
  }
}

static int chan_clear(PyObject *self) {
  drop_buffer((Chan *)self);
  return 0;
}

static void chan_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  Chan *ch = (Chan *)self;
  PyObject_GC_UnTrack(self);
  Py_TRASHCAN_BEGIN(self, chan_dealloc) /* a buffer may hold channels that hold channels, without end */
  if (ch->weakrefs) PyObject_ClearWeakRefs(self);
  drop_buffer(ch);
  chan_fini(&ch->c);
  Py_XDECREF(ch->name);
  type->tp_free(self);
  Py_DECREF(type);
  Py_TRASHCAN_END
}

static Py_ssize_t chan_len(PyObject *self) {
  Chan *ch = chan_of(self);
  return ch->is_timer ? 0 : (Py_ssize_t)load_rlx(&ch->c.qcount);
}

static PyObject *get_capacity(PyObject *self, void *Py_UNUSED(c)) {
  Chan *ch = chan_of(self);
  return PyLong_FromSize_t(ch->is_timer ? 0 : ch->c.dataqsiz);
}

static PyObject *get_closed(PyObject *self, void *Py_UNUSED(c)) {
  Chan *ch = chan_of(self);
  if (unlikely(ch->closes) && !chan_timer_poll(ch)) return NULL;
  return PyBool_FromLong(load_rlx(&ch->c.closed));
}

static PyObject *get_name(PyObject *self, void *Py_UNUSED(c)) {
  PyObject *name = chan_of(self)->name;
  return Py_NewRef(name ? name : Py_None);
}

static Py_ssize_t queue_len(waitq *q) {
  Py_ssize_t n = 0;
  for (sudog *sg = q->first; sg; sg = sg->next) n += (load_rlx(&sg->g->wait) & WAIT_S) != 0;
  return n;
}

static PyObject *py_waiting(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  Chan *ch = chan_of(self);
  return Py_BuildValue("(nn)", queue_len(&ch->c.sendq), queue_len(&ch->c.recvq));
}

static PyObject *py_statistics(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  PyObject *fn = helper("_view.stats", "chan_statistics");
  if (!fn) return NULL;
  PyObject *r = PyObject_CallOneArg(fn, (PyObject *)chan_of(self));
  Py_DECREF(fn);
  return r;
}

/* Awaitables, for asyncio: written in Python. */
static PyObject *py_arecv(PyObject *self, PyObject *Py_UNUSED(ignored)) {
  PyObject *fn = helper("_view.chan", "arecv");
  PyObject *r = fn ? PyObject_CallOneArg(fn, (PyObject *)chan_of(self)) : NULL;
  Py_XDECREF(fn);
  return r;
}
static PyObject *py_asend(PyObject *self, PyObject *value) {
  PyObject *fn = helper("_view.chan", "asend");
  PyObject *r = fn ? PyObject_CallFunctionObjArgs(fn, (PyObject *)chan_of(self), value, NULL) : NULL;
  Py_XDECREF(fn);
  return r;
}

/* (channel, value): what was received goes back. */
static PyObject *py_give_back(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
  (void)module;
  if (nargs != 2 || Py_TYPE(args[0]) != Chan_Type) {
    PyErr_SetString(PyExc_TypeError, "chan_give_back(ch, value)");
    return NULL;
  }
  if (!changiveback(&((Chan *)args[0])->c, (uint64_t)(uintptr_t)Py_NewRef(args[1]))) {
    Py_DECREF(args[1]);
    return PyErr_NoMemory();
  }
  Py_RETURN_NONE;
}
PyMethodDef chan_functions[] = {{"chan_give_back", FN(py_give_back), METH_FASTCALL, NULL}, {NULL, NULL, 0, NULL}};

static PyObject *view_of(PyObject *self, PyTypeObject *type) {
  View *v = (View *)type->tp_alloc(type, 0);
  if (v) v->ch = (Chan *)Py_NewRef(self);
  return (PyObject *)v;
}
static PyObject *get_sender(PyObject *self, void *Py_UNUSED(c)) { return view_of(self, SendView_Type); }
static PyObject *get_receiver(PyObject *self, void *Py_UNUSED(c)) {
  return view_of(self, RecvView_Type);
}

static PyObject *chan_repr(PyObject *self) {
  Chan *ch = chan_of(self);
  const char *closed = load_rlx(&ch->c.closed) ? " closed" : "";
  const char *type = _PyType_Name(Py_TYPE(self));
  Py_ssize_t len = chan_len(self), cap = ch->is_timer ? 0 : (Py_ssize_t)ch->c.dataqsiz;
  if (ch->name)
    return PyUnicode_FromFormat("<gmprt.%s %R %zd/%zd%s at %p>", type, ch->name, len, cap, closed, ch);
  return PyUnicode_FromFormat("<gmprt.%s %zd/%zd%s at %p>", type, len, cap, closed, ch);
}

static PyObject *py_enter(PyObject *self, PyObject *Py_UNUSED(ignored)) { return Py_NewRef(self); }

/* Closes unless the block has done so itself. */
static PyObject *py_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs) {
  (void)args, (void)nargs;
  chanclose(&chan_of(self)->c);
  Py_RETURN_NONE;
}

#define SEND_METHODS \
  {"send", FN(py_send), KW, \
   "send($self, value, /, *, timeout=None)\n--\n\nSend; waits until a receiver takes it or the buffer has room.\n" \
   "Raises ChannelClosed on a closed channel, Timeout after timeout seconds. Go's send."}, \
  {"send_nowait", py_send_nowait, METH_O, \
   "send_nowait($self, value, /)\n--\n\nSend without waiting; raises WouldBlock if nobody can take it now,\n" \
   "ChannelClosed on a closed channel."}, \
  {"send_many", FN(py_send_many), KW, \
   "send_many($self, values, /, *, timeout=None)\n--\n\nSend all, in order, waiting for room whenever there is none; returns\n" \
   "how many. ChannelClosed, Timeout and Cancelled have .sent, how many went before."}, \
  {"asend", py_asend, METH_O, \
   "asend($self, value, /)\n--\n\nAwaitable send, for asyncio. Cancelled, its CancelledError says in .sent whether it went."}
#define CLOSE_METHOD \
  {"close", py_close, METH_NOARGS, \
   "close($self, /)\n--\n\nWakes every waiter; buffered values are still delivered. Closing twice raises\n" \
   "ChannelClosed."}
#define RECV_METHODS \
  {"recv", FN(py_recv), KW, \
   "recv($self, /, *, timeout=None)\n--\n\nReceive; waits for a value. Raises EndOfChannel when closed and drained,\n" \
   "Timeout after timeout seconds. Go's receive."}, \
  {"recv_ok", FN(py_recv_ok), KW, \
   "recv_ok($self, /, *, timeout=None)\n--\n\nReceive with Go's comma-ok: (value, True), or (None, False) when the\n" \
   "channel is closed and drained. Timeout after timeout seconds."}, \
  {"recv_nowait", py_recv_nowait, METH_NOARGS, \
   "recv_nowait($self, /)\n--\n\nReceive without waiting; raises WouldBlock if there is nothing now,\n" \
   "EndOfChannel when closed and drained."}, \
  {"recv_many", FN(py_recv_many), KW, \
   "recv_many($self, max, /, *, timeout=None)\n--\n\nWait for a value, then take what is there, at most max: a list.\n" \
   "Raises EndOfChannel when closed and drained, Timeout after timeout seconds."}, \
  {"arecv", py_arecv, METH_NOARGS, \
   "arecv($self, /)\n--\n\nAwaitable recv, for asyncio. Cancelled, it has received nothing."}
#define CLASS_GETITEM \
  {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "Chan[T] for type checkers."}
#define GETTERS \
  {"capacity", get_capacity, NULL, "size of the buffer", NULL}, \
  {"closed", get_closed, NULL, "whether close() was called", NULL}, \
  {"name", get_name, NULL, "the name given, or None", NULL}

static PyMethodDef chan_methods[] = {
    SEND_METHODS,
    CLOSE_METHOD,
    RECV_METHODS,
    {"waiting", py_waiting, METH_NOARGS, "waiting($self, /)\n--\n\n(senders, receivers) parked now."},
    {"statistics", py_statistics, METH_NOARGS, "statistics($self, /)\n--\n\nA snapshot, as a dataclass."},
    {"__enter__", py_enter, METH_NOARGS, NULL},
    {"__exit__", FN(py_exit), METH_FASTCALL, NULL},
    CLASS_GETITEM,
    {NULL, NULL, 0, NULL}};
static PyGetSetDef chan_getset[] = {GETTERS,
                                    {"sender", get_sender, NULL, "a view that only sends", NULL},
                                    {"receiver", get_receiver, NULL, "a view that only receives", NULL},
                                    {NULL, NULL, NULL, NULL, NULL}};
static PyMemberDef chan_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Chan, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

/* Length 0 is not "false": a channel is always true, empty or not. */
static int chan_bool(PyObject *self) {
  (void)self;
  return 1;
}

static PyType_Slot chan_slots[] = {
    {Py_nb_bool, chan_bool},
    {Py_tp_doc, "Chan(capacity=0, *, name=None)\n--\n\nA channel, as in Go: unbuffered, or with a buffer."},
    {Py_tp_new, chan_new},
    {Py_tp_dealloc, chan_dealloc},
    {Py_tp_traverse, chan_traverse},
    {Py_tp_clear, chan_clear},
    {Py_tp_methods, chan_methods},
    {Py_tp_getset, chan_getset},
    {Py_tp_members, chan_members},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, py_next},
    {Py_tp_repr, chan_repr},
    {Py_sq_length, chan_len},
    {0, NULL}};
PyType_Spec chan_spec = {"gmprt.Chan", sizeof(Chan), 0,
                         Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, chan_slots};

static int view_traverse(PyObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(((View *)self)->ch);
  return 0;
}
static int view_clear(PyObject *self) {
  (void)self; /* a view without its channel would be no view; the channel breaks its own cycles */
  return 0;
}
static void view_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  Py_TRASHCAN_BEGIN(self, view_dealloc)
  Py_XDECREF(((View *)self)->ch);
  type->tp_free(self);
  Py_DECREF(type);
  Py_TRASHCAN_END
}
static PyObject *view_compare(PyObject *a, PyObject *b, int op) {
  if (Py_TYPE(a) != Py_TYPE(b) || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
  return PyBool_FromLong((((View *)a)->ch == ((View *)b)->ch) == (op == Py_EQ));
}
static Py_hash_t view_hash(PyObject *self) { return hash_pointer(((View *)self)->ch); }

static PyGetSetDef view_getset[] = {GETTERS, {NULL, NULL, NULL, NULL, NULL}};
static PyMethodDef sendview_methods[] = {SEND_METHODS, CLOSE_METHOD, CLASS_GETITEM,
                                         {NULL, NULL, 0, NULL}};
static PyMethodDef recvview_methods[] = {RECV_METHODS, CLASS_GETITEM, {NULL, NULL, 0, NULL}};
#define VIEW_SLOTS(methods, doc) \
  {Py_tp_doc, doc}, {Py_tp_dealloc, view_dealloc}, {Py_tp_traverse, view_traverse}, {Py_tp_clear, view_clear}, \
      {Py_tp_methods, methods}, {Py_tp_getset, view_getset}, {Py_tp_repr, chan_repr}, \
      {Py_sq_length, chan_len}, {Py_nb_bool, chan_bool}, {Py_tp_richcompare, view_compare}, \
      {Py_tp_hash, view_hash}
static PyType_Slot sendview_slots[] = {VIEW_SLOTS(sendview_methods, "A channel, to send and to close only."),
                                       {0, NULL}};
static PyType_Slot recvview_slots[] = {VIEW_SLOTS(recvview_methods, "A channel, to receive only."),
                                       {Py_tp_iter, PyObject_SelfIter},
                                       {Py_tp_iternext, py_next},
                                       {0, NULL}};
#define VIEW_FLAGS \
  (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | \
   Py_TPFLAGS_DISALLOW_INSTANTIATION)
PyType_Spec sendview_spec = {"gmprt.SendView", sizeof(View), 0, VIEW_FLAGS, sendview_slots};
PyType_Spec recvview_spec = {"gmprt.RecvView", sizeof(View), 0, VIEW_FLAGS, recvview_slots};
