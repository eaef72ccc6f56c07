/* cancel.c - whether a cancel may end an interposed call, asked when one has come.
 *
 * Below a shim (shim.c) the C code that waits is known to fail cleanly.  What stands between it and the Python code
 * that is to get the exception is another matter: print() into a slow pipe waits in FileIO.write, which BufferedWriter
 * called, which TextIOWrapper called; and that has dropped by then what other goroutines had written before, and
 * takes an exception for the end of it.  So a cancel ends a call only if
 *
 *   1. no frame above belongs to code that must not be left in the middle (SHIELDS): it takes back a lock that its
 *      caller will release whatever happens, has made a child or a thread of which nobody knows yet, or writes what
 *      a compressor gave out and will not give out again; or puts a thread that is a goroutine into threading's tables,
 *      or takes it out, below which the thread's own code runs (SHIELDED: only what it waits for itself);
 *   2. each file object above lets it through.  Those that lose what was written let nothing through, whatever the
 *      call is and whether it was made by C or by Python code in between (SocketIO).  BufferedWriter keeps it: a
 *      write or flush of its own ends, having done a part of what it was called for, as sendall() does.  Those that hold
 *      what was read let a read from below through as long as nothing would be lost: they had nothing when they were
 *      called and have got nothing since, or they are to read to the end (who gives up on that gives it all up).
 *      Python code between them and the call must be known to hand the data on (HANDS_ON);
 *   3. the evaluation loop itself called the shim, or the file object above it: nothing lies between but what the
 *      interpreter calls C functions with, and what passes a call on (partial, methodcaller, bound methods, super()).
 *      C code of any other kind (map(), sorted(key=), a pickler, extensions) may have a state that an exception
 *      destroys.
 *
 * Else the cancel is put off, and the wait goes on with N (call_woken): so all this costs nothing before a cancel comes.
 *
 * What calls functions and what does not is learned (cancel_learn): probes of each calling convention are called in all
 * ways, and the unwinder says through which functions they were reached.  No names, no versions.  The same for the two
 * numbers that say whether a file object holds data: they are where they are found in objects made for that.
 *
 * Machine code that the JIT has made is run by a loop, and calls in its place: who gets there from below has arrived at
 * the loop.  It calls through no other functions than the loop does, so nothing is learned from it.
 *
 * A cancelled Condition.wait must not swallow a notify.  It stands among the waiters until it has its lock back, and
 * notify() may pick it meanwhile: somebody else would wait for ever.  So the lock that it waited for is released before
 * the exception goes on; notify() then finds it unlocked, takes it out, and goes on to the next one (it does so since
 * signal handlers have raised there).  If it cannot be released it has been: the wait has been notified, and the
 * cancel waits.
 *
 * All with the GIL.  Rejected: deciding when the wait begins (a walk over the stack for each), C callers by name (there
 * are always more), raising and putting the data back (there is no way to). */
#include <unwind.h>

#include "py/interpose/shim.h"

/* ---- code of the standard library --------------------------------------------------------------------------- */

enum { SHIELDS = 1, SHIELDED, HANDS_ON, NOTIFIED };

static struct {
  uint8_t what;
  const char *module, *type, *name;
  const void *code; /* borrowed from functions that live for ever; NULL: not yet */
} known[] = {
    {SHIELDS, "threading", "Condition", "_acquire_restore", NULL},
    {SHIELDS, "threading", "Thread", "_wait_for_tstate_lock", NULL},
    {SHIELDS, "threading", "Thread", "start", NULL},
    {SHIELDS, "threading", "Thread", "_delete", NULL},
    {SHIELDS, "threading", "Event", "set", NULL}, /* by which a thread says that it has begun */
    {SHIELDED, "threading", "Thread", "_bootstrap_inner", NULL},
    {SHIELDS, "multiprocessing.synchronize", "Condition", "wait", NULL},
    {SHIELDS, "subprocess", "Popen", "_execute_child", NULL},
    {SHIELDS, "multiprocessing.managers", "BaseManager", "start", NULL},
    {SHIELDS, "multiprocessing.popen_spawn_posix", "Popen", "_launch", NULL},
    {SHIELDS, "multiprocessing.popen_forkserver", "Popen", "_launch", NULL},
    {SHIELDS, "gzip", "GzipFile", "write", NULL},
    {SHIELDS, "gzip", "GzipFile", "flush", NULL},
    {SHIELDS, "gzip", "GzipFile", "close", NULL},
    {SHIELDS, "bz2", "BZ2File", "write", NULL},
    {SHIELDS, "bz2", "BZ2File", "close", NULL},
    {SHIELDS, "lzma", "LZMAFile", "write", NULL},
    {SHIELDS, "lzma", "LZMAFile", "close", NULL},
    {SHIELDS, "zipfile", "_ZipWriteFile", "write", NULL},
    {SHIELDS, "zipfile", "_ZipWriteFile", "close", NULL},
    {HANDS_ON, "socket", "SocketIO", "write", NULL},
    {HANDS_ON, "ssl", "SSLSocket", "send", NULL},
    {HANDS_ON, "socket", "SocketIO", "readinto", NULL},
    {HANDS_ON, "ssl", "SSLSocket", "recv_into", NULL},
    {HANDS_ON, "ssl", "SSLSocket", "read", NULL},
    {NOTIFIED, "threading", "Condition", "wait", NULL},
};

static void find_code(size_t i) {
  PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), known[i].module);
  PyObject *type = module ? PyObject_GetAttrString(module, known[i].type) : NULL;
  PyObject *f = type ? PyObject_GetAttrString(type, known[i].name) : NULL;
  if (f && PyFunction_Check(f)) known[i].code = PyFunction_GET_CODE(f);
  PyErr_Clear();
  Py_XDECREF(f);
  Py_XDECREF(type);
}

static bool is_code(pyframe f, int what) {
  const void *code = frame_code(f);
  for (size_t i = 0; i < nelem(known); i++)
    if (code && known[i].what == what && known[i].code == code) return true;
  return false;
}

static bool shielded(PyThreadState *ts) {
  if (is_code(frame_first(ts), SHIELDED)) return true;
  for (pyframe f = frame_first(ts); f; f = frame_above(f))
    if (is_code(f, SHIELDS)) return true;
  return false;
}

/* A lock's wait has failed. true: it was notified; else nobody will be in its place. */
bool cancel_notified(Goroutine *self, const shim *s) {
  if (!is_code(frame_first(ts_of(self->g)), NOTIFIED)) return false;
  PyObject *r = PyObject_CallMethod(s->object, "acquire", "i", 0);
  bool taken = r == Py_True;
  Py_XDECREF(r);
  if (!taken) Py_XDECREF(PyObject_CallMethod(s->object, "release", NULL));
  PyErr_Clear();
  return taken;
}

/* ---- file objects -------------------------------------------------------------------------------------------- */

/* Where they keep how much they hold, in bytes from the object's start; 0: not known. */
static struct {
  Py_ssize_t pos, decoded;
} at;

#define FIELD(type, o, offset) (*(type *)((char *)(o) + (offset)))

/* pos, raw_pos, read_end: after two of six bytes 2, 6, 6. */
static void find_buffered(PyObject *o) {
  Py_ssize_t found = 0, size = Py_TYPE(o)->tp_basicsize - 3 * (Py_ssize_t)sizeof(int64_t);
  for (Py_ssize_t i = sizeof(PyObject); i <= size; i += sizeof(int64_t)) {
    if (FIELD(int64_t, o, i) != 2 || FIELD(int64_t, o, i + 8) != 6 || FIELD(int64_t, o, i + 16) != 6) continue;
    if (found) return;
    found = i;
  }
  at.pos = found;
}

/* decoded_chars, decoded_chars_used: a string is next to the number of its characters that were given out. */
static void find_text(PyObject *o, PyObject *decoded) {
  Py_ssize_t found = 0, size = Py_TYPE(o)->tp_basicsize - 2 * (Py_ssize_t)sizeof(int64_t);
  for (Py_ssize_t i = sizeof(PyObject); i <= size; i += sizeof(PyObject *)) {
    if (FIELD(PyObject *, o, i) != decoded || FIELD(Py_ssize_t, o, i + 8) != 2) continue;
    if (found) return;
    found = i;
  }
  at.decoded = found;
}

/* Python code of ours, compiled at import: the interpreter's compiler does not bear that memory is refused. */
static struct {
  PyObject *files, *learn;
} compiled;

/* Of objects that hold something known. */
static const char files_code[] =
    "import gc, io\n"
    "b = io.BufferedReader(io.BytesIO(b'abcdef'))\n"
    "b.read(2)\n"
    "t = io.TextIOWrapper(io.BytesIO(b'abcdef'), 'utf-8')\n"
    "t.read(2)\n"
    "decoded = [x for x in gc.get_referents(t) if x == 'abcdef'][0]\n";

static PyObject *run_code(PyObject *code, PyObject *names) {
  if (PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) < 0) return NULL;
  return PyEval_EvalCode(code, names, names);
}

/* Before anything is replaced: other threads may come here meanwhile.  Where nothing is found, nothing is let
 * through that may hold something.  false: exception set, perhaps a signal handler's, which must not be lost. */
bool cancel_find_files(void) {
  PyObject *names = PyDict_New(), *done = names ? run_code(compiled.files, names) : NULL;
  if (done) {
    find_buffered(PyDict_GetItemString(names, "b"));
    find_text(PyDict_GetItemString(names, "t"), PyDict_GetItemString(names, "decoded"));
  }
  Py_XDECREF(done);
  Py_XDECREF(names);
  if (!PyErr_Occurred()) return true;
  if (!PyErr_ExceptionMatches(PyExc_IndexError)) return false;
  PyErr_Clear(); /* the text is not among what the file refers to */
  return true;
}

/* Nothing is held by it that a read would take first. */
bool file_untouched(PyObject *buffered, PyObject *text) {
  if (buffered && at.pos) {
    int64_t end = FIELD(int64_t, buffered, at.pos + 16);
    return end == -1 || end <= FIELD(int64_t, buffered, at.pos);
  }
  if (text && at.decoded) {
    PyObject *held = FIELD(PyObject *, text, at.decoded);
    return !held || PyUnicode_GET_LENGTH(held) <= FIELD(Py_ssize_t, text, at.decoded + 8);
  }
  return false;
}

/* Only functions that hand the data on, from this frame up to the file object's. */
static bool handed_on(pyframe f, const void *upto) {
  for (; f && f != upto; f = frame_above(f))
    if (!is_code(f, HANDS_ON) && !frame_incomplete(f)) return false;
  return true;
}

static bool files_let_through(const shim *s) {
  bool loses = false;
  for (const shim *o = s->outer; o; s = o, o = o->outer) {
    if (o->family != FAM_NONE) continue;
    if (o->passes == PASS_NONE || !handed_on(s->frame, o->frame)) return false;
    loses |= o->passes == PASS_UNTOUCHED && o->touched;
    loses &= o->passes != PASS_END;
  }
  return !loses;
}

/* ---- who called ---------------------------------------------------------------------------------------------- */

enum { GLUE = 64 };
static struct {
  bool learned;
  uint32_t n;
  uintptr_t at[GLUE]; /* functions that do nothing but call */
} glue;

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _etext[] __attribute__((visibility("hidden")));

static bool is_ours(uintptr_t p) { return p >= (uintptr_t)__ehdr_start && p < (uintptr_t)_etext; }

static bool is_glue(uintptr_t fn) {
  for (uint32_t i = 0; i < glue.n; i++)
    if (glue.at[i] == fn) return true;
  return is_ours(fn);
}

static void add_glue(uintptr_t fn) {
  if (!is_glue(fn) && glue.n < GLUE) glue.at[glue.n++] = fn;
}

typedef struct way {
  uintptr_t from, to; /* the shim, the evaluation loop: addresses in their frames */
  jitcode code;       /* what the loop runs */
  uintptr_t fn;       /* the function above, if it is not the loop: we see that when we see the next one */
  bool learns, glued, arrived;
} way;

/* Each frame from the shim to the loop.  The stack pointer with which it called tells where it lies.  What is compiled
 * may be the last that the unwinder finds. */
static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *arg) {
  way *w = arg;
  uintptr_t sp = (uintptr_t)_Unwind_GetCFA(context);
  if (sp <= w->from) return _URC_NO_REASON;
  w->arrived = sp > w->to;
  if (w->arrived) return _URC_END_OF_STACK;
  if (w->fn && w->learns) add_glue(w->fn);
  if (w->fn && !is_glue(w->fn)) w->glued = false;
  w->arrived = (uintptr_t)_Unwind_GetIP(context) - w->code.at < w->code.size;
  w->fn = (uintptr_t)_Unwind_GetRegionStart(context);
  return w->glued && !w->arrived ? _URC_NO_REASON : _URC_END_OF_STACK;
}

/* Nothing but glue from s on: to that loop, or to the bottom of the stack of a goroutine that runs a C function. */
static bool called_by(const shim *s, const char *to, bool bottom, jitcode code) {
  way w = {.from = (uintptr_t)s, .to = (uintptr_t)to, .code = code, .glued = true};
  _Unwind_Backtrace(step, &w);
  return w.glued && (bottom ? is_glue(w.fn) : w.arrived);
}

/* The outermost shim on this side of the innermost loop, and so on: there are loops between a file object and the
 * call if Python code hands on what it reads and writes. */
static bool called_directly(G *gp, const shim *s) {
  const char *lo = __builtin_frame_address(0), *hi = gp->stk.hi, *loop = ts_inner_loop(ts_of(gp));
  for (; s; s = s->outer) {
    while (loop >= lo && loop < (const char *)s) loop = outer_loop(loop);
    bool bottom = loop < lo || loop >= hi; /* loops of another stack do not count */
    const char *to = bottom ? hi : loop;
    if (s->outer && (const char *)s->outer < to) continue;
    if (!called_by(s, to, bottom, loop_jitcode(ts_of(gp), loop))) return false;
  }
  return true;
}

/* ---- learning ------------------------------------------------------------------------------------------------ */

static PyObject *learn(void) {
  char here;
  PyThreadState *ts = PyThreadState_Get();
  const char *loop = ts_inner_loop(ts);
  way w = {.from = (uintptr_t)&here, .to = (uintptr_t)loop, .code = loop_jitcode(ts, loop), .glued = true};
  w.learns = true;
  _Unwind_Backtrace(step, &w);
  Py_RETURN_NONE;
}

static PyObject *probe_plain(PyObject *Py_UNUSED(o), PyObject *Py_UNUSED(a)) { return learn(); }
static PyObject *probe_keywords(PyObject *Py_UNUSED(o), PyObject *Py_UNUSED(a), PyObject *Py_UNUSED(k)) {
  return learn();
}
static PyObject *probe_fast(PyObject *Py_UNUSED(o), PyObject *const *Py_UNUSED(a), Py_ssize_t Py_UNUSED(n)) {
  return learn();
}
static PyObject *probe_fast_keywords(PyObject *Py_UNUSED(o), PyObject *const *Py_UNUSED(a), Py_ssize_t Py_UNUSED(n),
                                     PyObject *Py_UNUSED(k)) {
  return learn();
}
static PyObject *probe_method(PyObject *Py_UNUSED(o), PyTypeObject *Py_UNUSED(t), PyObject *const *Py_UNUSED(a),
                              Py_ssize_t Py_UNUSED(n), PyObject *Py_UNUSED(k)) {
  return learn();
}

#define PROBE(name, flags) {#name, (PyCFunction)(void (*)(void))probe_##name, flags, NULL}
static PyMethodDef probes[] = {
    {"noargs", probe_plain, METH_NOARGS, NULL},
    {"__enter__", probe_plain, METH_NOARGS, NULL},
    {"one", probe_plain, METH_O, NULL},
    {"__exit__", probe_plain, METH_VARARGS, NULL},
    PROBE(plain, METH_VARARGS),
    PROBE(keywords, METH_VARARGS | METH_KEYWORDS),
    PROBE(fast, METH_FASTCALL),
    PROBE(fast_keywords, METH_FASTCALL | METH_KEYWORDS),
    PROBE(method, METH_METHOD | METH_FASTCALL | METH_KEYWORDS),
    {NULL, NULL, 0, NULL},
};
static PyObject *traced(PyObject *Py_UNUSED(o), PyObject *on) {
  return PyBool_FromLong(tstate_traced(PyThreadState_Get(), on == Py_True));
}
static PyMethodDef traced_def = {"traced", traced, METH_O, NULL};

static PyObject *probe_next(PyObject *Py_UNUSED(o)) { return learn(); }
static PyType_Slot probe_slots[] = {
    {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, probe_next}, {0, NULL}};
static PyType_Spec probe_spec = {"gmprt._native.Probe", sizeof(PyObject), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, probe_slots};

/* Each of them in all the ways in which a function is called, but for what is done without any other function; and what
 * an instruction calls often, for it is specialised then, and from 3.15 on calls through other functions.  With few
 * arguments and many, before and behind a partial's own: the compiler divides a function by how often its parts have run
 * in a profile, and ends calls by jumps, so a part is seen only by those that come through it.  Where a profile function
 * or a debugger hears of a call it goes through others, on 3.11 and from 3.14 on.  (With the JIT the id that hears of them
 * is not given back: 3.14 would look through the frames of all states, and may lock itself out while it does.) */
static const char learn_code[] =
    "import sys\n"
    "from functools import partial\n"
    "from io import RawIOBase\n"
    "from operator import methodcaller\n"
    "from types import MethodType\n"
    "a, k, many = (1,), {'k': 1}, (1,) * 7\n"
    "calls = [lambda f: f(), lambda f: f(1), lambda f: f(1, 1), lambda f: f(1, 1, 1, 1, 1, 1, 1),\n"
    "         lambda f: f(*a), lambda f: f(*many)]\n"
    "keyword_calls = [lambda f: f(k=1), lambda f: f(1, k=1), lambda f: f(1, 1, 1, 1, 1, 1, 1, k=1),\n"
    "                 lambda f: f(*a, k=1), lambda f: f(**k), lambda f: f(*many, **k)]\n"
    "class Derived(Probe):\n"
    "    def supers(self):\n"
    "        for _ in range(20): super().noargs(); super().fast(1); super().plain(1); super().one(1)\n"
    "def each(name):\n"
    "    a = () if name in ('noargs', '__enter__') else (1,)\n"
    "    m = getattr(o, name)\n"
    "    u = getattr(Probe, name)\n"
    "    m(*a); u(o, *a); m(*a, **{}); u(o, *a, **{})\n"
    "    if a: m(1); u(o, 1)\n"
    "    else: m(); u(o)\n"
    "    partial(m)(*a); partial(m, *a)(); partial(u, o)(*a); partial(u, o, *a)()\n"
    "    methodcaller(name, *a)(o)\n"
    "    getattr(super(Derived, o), name)(*a)\n"
    "    MethodType(u, o)(*a); MethodType(partial(u), o)(*a)\n"
    "def through(m, keywords):\n"
    "    heads = [m, MethodType(m, 1)]\n"
    "    for f in m, heads[1]: heads += partial(f), partial(f, 1), partial(f, 1, 1), partial(f, *many)\n"
    "    heads += [MethodType(f, 1) for f in heads[2:]]\n"
    "    methodcaller(m.__name__, *many)(o)\n"
    "    if keywords:\n"
    "        heads += partial(m, k=1), partial(m, 1, k=1), partial(m, *many, k=1)\n"
    "        for args in (), a, many: methodcaller(m.__name__, *args, k=1)(o)\n"
    "    for f in heads:\n"
    "        for call in calls + keyword_calls * keywords: call(f)\n"
    "def often(o, n, e, p, f, g, h, m):\n"
    "    for _ in range(20):\n"
    "        o.noargs(); o.one(1); o.plain(1); o.keywords(1); o.fast(1); o.fast_keywords(1); o.method(1)\n"
    "        n(); e(1); p(1); g(1); f(1); h(1); m(1)\n"
    "        Probe.noargs(o); Probe.one(o, 1); Probe.plain(o, 1); Probe.fast(o, 1); Probe.fast_keywords(o, 1)\n"
    "        o.keywords(k=1); o.fast_keywords(k=1); o.method(k=1); g(k=1); h(k=1); m(k=1)\n"
    "        n(*()); f(*a); g(*a); h(**k); m(*a, **k); o.noargs(*()); o.fast(*a); o.method(*a, **k)\n"
    "        with o:\n"
    "            pass\n"
    "        next(o); next(o, None)\n"
    "        for _ in o: break\n"
    "def reported(*args):\n"
    "    watch = sys.monitoring\n"
    "    for i in 4, 3, 5, 2, 1, 0:\n"
    "        try: watch.use_tool_id(i, 'gmprt')\n"
    "        except ValueError: continue\n" /* somebody has that one */
    "        try:\n"
    "            watch.set_local_events(i, often.__code__, watch.events.CALL)\n"
    "            often(*args)\n"
    "        finally:\n"
    "            watch.set_local_events(i, often.__code__, 0)\n"
    "            if not sys._jit.is_enabled(): watch.free_tool_id(i)\n"
    "        break\n"
    "class Lines(RawIOBase):\n"
    "    readline = Probe().noargs\n" /* a file's line is what its readline returns */
    "def all_ways():\n"
    "    for name in names: each(name)\n"
    "    through(o.plain, False)\n"
    "    through(o.fast_keywords, True)\n"
    "    often(*specialised)\n"
    "    o.supers()\n"
    "    try: next(Lines())\n"
    "    except TypeError: pass\n" /* None is none */
    "o = Derived()\n"
    "p = Probe()\n" /* its methods are specialised, those of a derived object are not */
    "specialised = p, p.noargs, p.one, p.plain, p.fast, p.keywords, p.fast_keywords, p.method\n"
    "all_ways()\n"
    "if hasattr(sys, '_jit'): reported(*specialised)\n" /* from 3.14 on */
    "try:\n"
    "    if traced(True): all_ways()\n"
    "finally:\n"
    "    traced(False)\n";

/* At import. false: exception set. */
bool cancel_compile(void) {
  compiled.files = Py_CompileString(files_code, "<gmprt>", Py_file_input);
  compiled.learn = compiled.files ? Py_CompileString(learn_code, "<gmprt>", Py_file_input) : NULL;
  return compiled.learn != NULL;
}

/* Before the first cancel; where a goroutine may do anything.  false: exception set, and nothing is learned: a cancel
 * that nothing is known about would be put off for ever.  Who comes while another thread learns has to learn, too. */
bool cancel_learn(void) {
  if (likely(glue.learned)) return true;
  PyObject *type = PyType_FromSpec(&probe_spec), *names = PyDict_New(), *list = PyList_New(0), *done = NULL;
  PyObject *trace = PyCFunction_New(&traced_def, NULL);
  bool ok = type && names && list && trace && PyDict_SetItemString(names, "traced", trace) == 0;
  for (const PyMethodDef *d = probes; ok && d->ml_name; d++) {
    /* One by one: 3.13.0 crashes when it is refused the memory for methods while it makes a type. */
    PyObject *method = PyDescr_NewMethod((PyTypeObject *)type, (PyMethodDef *)d), *name = PyUnicode_FromString(d->ml_name);
    ok = method && name && PyObject_SetAttr(type, name, method) == 0 && PyList_Append(list, name) == 0;
    if (!ok) PyErr_NoMemory(); /* nothing else fails here; 3.13 calls it an AttributeError of the type */
    Py_XDECREF(method);
    Py_XDECREF(name);
  }
  if (ok && PyDict_SetItemString(names, "Probe", type) == 0 && PyDict_SetItemString(names, "names", list) == 0)
    done = run_code(compiled.learn, names);
  add_glue((uintptr_t)PyObject_Vectorcall); /* what starts a goroutine: from 3.15 on the interpreter goes other ways */
  glue.learned |= done != NULL;
  if (!done && !PyErr_Occurred()) PyErr_NoMemory(); /* what was refused memory may not have said so */
  bool learned = done != NULL;
  Py_XDECREF(done);
  Py_XDECREF(trace);
  Py_XDECREF(list);
  Py_XDECREF(names);
  Py_XDECREF(type);
  return learned;
}

/* ---- the answer ---------------------------------------------------------------------------------------------- */

/* A cancel has come while the running goroutine waited below a shim. */
bool cancel_ends(Goroutine *self) {
  const shim *s = self->shim;
  for (size_t i = 0; i < nelem(known); i++)
    if (!known[i].code) find_code(i);
  return !shielded(ts_of(self->g)) && files_let_through(s) && called_directly(self->g, s);
}
