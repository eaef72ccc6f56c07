/* selfcheck.c - is this interpreter laid out as the one whose headers we were compiled with?
 *
 * A wheel is built with the headers of one micro release and runs on others: pip keeps what it has built.  Private
 * structs have been stable within a minor version so far, but nobody promises it, and a field that has moved by
 * eight bytes corrupts memory without a word.  So the structs are looked at once, at import, before anything is
 * written to them: by their values (a state just made is known in every field), by public operations (enter a
 * context: the field changes), and from 3.13 on by the offsets that the interpreter publishes for debuggers.
 *
 * What changes between releases is that a field is put in, or taken out, and all behind it move.  So not every field
 * needs a look: each that we use lies at or before one that has a look in the same struct.  Fields without a look of
 * their own are listed all the same (listed), and tests/test_selfcheck.py moves the tail of each struct from
 * each listed field on, by a word to either side, and sees that it is noticed.  Who uses another field lists it here.
 *
 * A pointer is followed only after a look at it.  If something differs, the module is not loaded; what preemption
 * alone needs (ceval.pending, gc) switches that off instead, and where the lists of os.register_at_fork are is known or
 * not: then our handler is the last in a forked child, not the first (host/fork.c).  It takes 24 us on
 * 3.11, and 150 us on 3.13. */
#include "py/cpython/field.h"
#include "py/cpython/pending.h"
#include "py/cpython/preempt.h"

#include <frameobject.h>

/* ---- what the interpreter publishes ---------------------------------------------------------------------- */

#ifdef HAVE_DEBUG_OFFSETS
static bool same(check *c, field f, uint64_t published) { return is(c, f, offset(c, f) == published); }

static bool published(check *c) {
  const _Py_DebugOffsets *o = &_PyRuntime.debug_offsets;
  uint64_t gil = o->interpreter_state.gil_runtime_state;
  return is(c, RT(debug_offsets), memcmp(o->cookie, _Py_Debug_Cookie, sizeof o->cookie) == 0) &&
         same(c, TS(interp), o->thread_state.interp) && same(c, TS(_status), o->thread_state.status) &&
         same(c, TS(current_frame), o->thread_state.current_frame) &&
#ifdef HAVE_BASE_FRAME
         same(c, TS(base_frame), o->thread_state.base_frame) &&
#endif
         same(c, TS(thread_id), o->thread_state.thread_id) &&
         same(c, TS(native_thread_id), o->thread_state.native_thread_id) &&
         same(c, TS(datastack_chunk), o->thread_state.datastack_chunk) &&
         same(c, (field){STATE, sizeof(PyThreadState), 0, "PyThreadState's end"}, o->thread_state.size) &&
         same(c, IS(gc), o->interpreter_state.gc) && same(c, IS(ceval.gil), o->interpreter_state.ceval_gil) &&
         same(c, F(GIL, struct _gil_runtime_state, last_holder), o->interpreter_state.gil_runtime_state_holder - gil) &&
         same(c, F(GIL, struct _gil_runtime_state, locked), o->interpreter_state.gil_runtime_state_locked - gil) &&
         same(c, FR(previous), o->interpreter_frame.previous) &&
         same(c, FR(f_executable), o->interpreter_frame.executable) &&
         same(c, FR(instr_ptr), o->interpreter_frame.instr_ptr) && same(c, FR(owner), o->interpreter_frame.owner) &&
         same(c, FR(localsplus), o->interpreter_frame.localsplus);
}
#else
static bool published(check *c) {
  (void)c;
  return true;
}
#endif

/* ---- thread states --------------------------------------------------------------------------------------- */

#ifndef HAVE_GLOBAL_CURRENT
/* The bits by which the interpreter marks a state that is new, or current. */
static bool status(check *c) {
  PyThreadState fresh = {._status = {.initialized = 1, .bound = 1}}, now = fresh;
  now._status.bound_gilstate = now._status.active = 1;
#ifdef HOLDS_GIL
  HOLDS_GIL(&now) = 1;
#endif
  field f = TS(_status);
  return holds(c, c->fresh, f, value(&(check){.by = 0}, &fresh, f)) &&
         holds(c, c->now, f, value(&(check){.by = 0}, &now, f));
}
#endif

static bool fresh_state(check *c) {
  const PyThreadState *ts = c->fresh;
  uint64_t limit = (uint64_t)Py_GetRecursionLimit();
  if (!points(c, ts, TS(interp), PyInterpreterState_Get())) return false;
#ifdef HAVE_TSTATE_BREAKER
  listed(c, TS(eval_breaker));
#endif
#ifndef HAVE_GLOBAL_CURRENT
  if (!status(c)) return false;
#endif
#ifdef HAVE_ATTACH_STATE
  if (!holds(c, ts, TS(state), _Py_THREAD_DETACHED) || !holds(c, c->now, TS(state), _Py_THREAD_ATTACHED))
    return false;
#endif
#ifdef HAVE_JOINT_RECURSION
  if (!holds(c, ts, TS(recursion_remaining), limit) || !holds(c, ts, TS(recursion_limit), limit)) return false;
  listed(c, TS(tracing_what));
  listed(c, TS(c_tracefunc));
#else
  if (!holds(c, ts, TS(py_recursion_remaining), limit) || !holds(c, ts, TS(py_recursion_limit), limit) ||
      !holds(c, ts, TS(what_event), (uint32_t)-1))
    return false;
#ifdef HAVE_C_RECURSION
  listed(c, TS(c_recursion_remaining));
#endif
#endif
  listed(c, TS(recursion_headroom));
  PyThreadState_EnterTracing(c->fresh);
  bool counted = holds(c, ts, TS(tracing), 1);
  PyThreadState_LeaveTracing(c->fresh);
#ifdef HAVE_CFRAME
  if (!points(c, ts, TS(cframe), inside(c, ts, TS(root_cframe)))) return false;
#endif
  listed(c, TS(c_profileobj));
  listed(c, TS(c_traceobj));
  listed(c, TS(async_exc));
#ifdef HAVE_ON_DELETE
  listed(c, TS(on_delete));
  listed(c, TS(on_delete_data));
#endif
  listed(c, TS(coroutine_origin_tracking_depth));
#ifdef HAVE_EXECUTORS
  listed(c, TS(current_executor));
#endif
#ifdef HAVE_LOCAL_KEY
  listed(c, TS(threading_local_key));
  listed(c, TS(threading_local_sentinel));
#endif
  return counted && points(c, ts, TS(exc_info), inside(c, ts, TS(exc_state))) &&
         holds(c, ts, TS(gilstate_counter), 1) && holds(c, ts, TS(thread_id), PyThread_get_thread_ident()) &&
         holds(c, ts, TS(native_thread_id), PyThread_get_thread_native_id()) &&
         holds(c, ts, TS(id), PyThreadState_GetID(c->fresh));
}

/* Enters a context and leaves it. */
static bool context(check *c) {
  PyObject *ctx = PyContext_New();
  uint64_t version = value(c, c->now, TS(context_ver));
  if (!ctx || PyContext_Enter(ctx) < 0) {
    Py_XDECREF(ctx);
    PyErr_Clear();
    return true; /* no memory: not our question */
  }
  bool so = points(c, c->now, TS(context), ctx) && holds(c, c->now, TS(context_ver), version + 1);
  PyContext_Exit(ctx);
  Py_DECREF(ctx);
  return so;
}

/* The chunk on top of the data stack ends where the stack does. */
static bool data_stack(check *c) {
  uint64_t chunk = value(c, c->now, TS(datastack_chunk)), top = value(c, c->now, TS(datastack_top)),
           limit = value(c, c->now, TS(datastack_limit));
  listed(c, TS(datastack_chunk));
  listed(c, TS(datastack_top));
  return is(c, TS(datastack_limit), chunk % 8 == 0 && chunk < top && top <= limit && limit - chunk < 1ull << 30) &&
         holds(c, (void *)(uintptr_t)chunk, F(CHUNK, _PyStackChunk, size), limit - chunk);
}

#ifdef HAVE_ENSURE_COUNTER
static bool entered(check *c) {
  PyInterpreterGuard *guard = PyInterpreterGuard_FromCurrent();
  uint64_t before = value(c, c->now, TS(ensure.counter));
  PyThreadStateToken *token = guard ? PyThreadState_Ensure(guard) : NULL;
  bool so = !token || holds(c, c->now, TS(ensure.counter), before + 1);
  if (token) PyThreadState_Release(token);
  if (guard) PyInterpreterGuard_Close(guard);
  PyErr_Clear(); /* no memory: not our question */
  return so;
}
#else
static bool entered(check *c) {
  (void)c;
  return true;
}
#endif

static bool current_state(check *c) {
  PyObject *dict = PyThreadState_GetDict();
  return points(c, c->now, TS(dict), dict) && context(c) && data_stack(c) && entered(c);
}

/* ---- frames ------------------------------------------------------------------------------------------------ */

/* The way out, to the frame by which an evaluation loop was entered. */
static bool entry(check *c, const void *f) {
#ifdef HAVE_ENTRY_FRAMES
  for (; f; f = (void *)(uintptr_t)value(c, f, FR(previous)))
    if (value(c, f, FR(owner)) == ENTRY_FRAME) return is(c, FR(owner), true);
  return is(c, FR(owner), false);
#else
  for (const void *out; (out = (void *)(uintptr_t)value(c, f, FR(previous))) != NULL;) f = out;
  return holds(c, f, FR(is_entry), true);
#endif
}

/* Between the frames of two Python functions there may be that of an evaluation loop, on the C stack. */
static bool before(const void *f, const void *previous) {
  uintptr_t sp = (uintptr_t)__builtin_frame_address(0), at = (uintptr_t)f;
  return f == previous || (at > sp && at - sp < 64 << 10);
}

static bool frame_of(check *c, PyFrameObject *o, PyCodeObject *code, PyFrameObject *back) {
  field f_frame = F(FRAME_OBJECT, PyFrameObject, f_frame);
  const void *f = TS_FRAME(c->now), *out = NULL;
  if (!points(c, o, f_frame, f)) return false;
  if (back) out = (void *)(uintptr_t)value(c, back, f_frame);
  const _Py_CODEUNIT *at = _PyCode_CODE(code) + PyFrame_GetLasti(o) / (int)sizeof(_Py_CODEUNIT);
#ifdef HAVE_PREV_INSTR
  bool so = points(c, f, FR(f_code), code) && points(c, f, FR(prev_instr), at);
#elif defined(HAVE_STACKREFS) /* tagged, perhaps */
  bool so = is(c, FR(f_executable), value(c, f, FR(f_executable)) - (uintptr_t)code <= Py_TAG_BITS) &&
            points(c, f, FR(instr_ptr), at);
#else
  bool so = points(c, f, FR(f_executable), code) && points(c, f, FR(instr_ptr), at);
#endif
  return so && points(c, f, FR(frame_obj), o) &&
         is(c, FR(previous), before((void *)(uintptr_t)value(c, f, FR(previous)), out)) && entry(c, f);
}

#ifdef HAVE_GLOBAL_CURRENT
/* A frame that was not made by a call belongs to its object. */
static bool owner(check *c, PyCodeObject *code) {
  PyObject *names = PyDict_New();
  PyFrameObject *o = names ? PyFrame_New(c->now, code, names, NULL) : NULL;
  const void *f = o ? (void *)(uintptr_t)value(c, o, F(FRAME_OBJECT, PyFrameObject, f_frame)) : NULL;
  bool so = !f || holds(c, f, FR(owner), FRAME_OWNED_BY_FRAME_OBJECT);
  Py_XDECREF(o);
  Py_XDECREF(names);
  return so;
}

/* The attribute shows the field. */
static bool trace_opcodes(check *c, PyFrameObject *o) {
  field f = F(FRAME_OBJECT, PyFrameObject, f_trace_opcodes);
  PyObject *was = PyObject_GetAttrString((PyObject *)o, "f_trace_opcodes");
  bool so = true;
  for (int on = 0; on < 2 && so; on++) {
    PyObject_SetAttrString((PyObject *)o, "f_trace_opcodes", on ? Py_True : Py_False);
    so = holds(c, o, f, (uint64_t)on);
  }
  if (was) PyObject_SetAttrString((PyObject *)o, "f_trace_opcodes", was);
  Py_XDECREF(was);
  return so;
}
#endif

static bool frames(check *c) {
  PyFrameObject *o = PyThreadState_GetFrame(c->now);
  if (!o) return true; /* not imported by Python code */
  PyFrameObject *back = PyFrame_GetBack(o);
  PyCodeObject *code = PyFrame_GetCode(o);
#ifdef HAVE_TSTATE_BREAKER
  bool so = points(c, c->now, TS(current_frame), TS_FRAME(c->now));
#else
  bool so = true;
#endif
  so = so && frame_of(c, o, code, back);
#ifdef HAVE_GLOBAL_CURRENT
  so = so && owner(c, code) && trace_opcodes(c, o);
#endif
  Py_DECREF(code);
  Py_XDECREF(back);
  Py_DECREF(o);
  return so;
}

/* ---- runtime, interpreter, GIL ------------------------------------------------------------------------------ */

static bool gil(check *c, const void *g, field holder, field locked) {
  if (value(c, g, holder) != (uintptr_t)c->now) { /* states were swapped below the GIL: take it properly */
    PyEval_SaveThread();
    PyEval_RestoreThread(c->now);
  }
  if (!points(c, g, holder, c->now) || !holds(c, g, locked, 1)) return false;
  PyEval_SaveThread();
  bool dropped = value(c, g, locked) == 0 || value(c, g, holder) != (uintptr_t)c->now; /* or another has it */
  PyEval_RestoreThread(c->now);
  return is(c, locked, dropped);
}

static bool runtime(check *c) {
  const _PyRuntimeState *rt = &_PyRuntime;
  listed(c, RT(main_thread));
#ifdef HAVE_MAIN_TSTATE
  listed(c, RT(main_tstate));
#endif
#ifdef HAVE_TLS_GILSTATE
  return points(c, rt, RT(gilstate.autoInterpreterState), PyInterpreterState_Main());
#else
#ifdef HAVE_GLOBAL_CURRENT
  field key = RT(gilstate.autoTSSkey);
  if (!points(c, rt, RT(gilstate.tstate_current), c->now)) return false;
#else
  field key = RT(autoTSSkey);
#endif
  Py_tss_t tss; /* a public struct: it does not change inside */
  memcpy(&tss, inside(c, rt, key), sizeof tss);
  return is(c, key, tss._is_initialized == 1 && pthread_getspecific(tss._key) == PyGILState_GetThisThreadState());
#endif
}

static bool interpreter(check *c) {
  const PyInterpreterState *own = PyInterpreterState_Get();
#ifdef HAVE_TSTATE_BREAKER
  uint64_t version = value(c, c->now, TS(eval_breaker)) & ~(uint64_t)_PY_EVAL_EVENTS_MASK;
  if (!holds(c, own, IS(ceval.instrumentation_version), version)) return false;
#endif
  if (!holds(c, own, IS(ceval.recursion_limit), (uint64_t)Py_GetRecursionLimit())) return false;
#ifdef HAVE_GLOBAL_CURRENT
  return gil(c, &_PyRuntime, RT(ceval.gil.last_holder), RT(ceval.gil.locked));
#else
  /* The main interpreter's lies inside it, wherever that is. */
  uint64_t g = value(c, own, IS(ceval.gil)), from = (uintptr_t)own;
  return is(c, IS(ceval.gil), g % 8 == 0 && g > from && g < from + 2 * sizeof *own) &&
         gil(c, (void *)(uintptr_t)g, F(GIL, struct _gil_runtime_state, last_holder),
             F(GIL, struct _gil_runtime_state, locked));
#endif
}

/* ---- what preemption needs ----------------------------------------------------------------------------------- */

/* Between what the module gc shows. */
static bool collector(check *c) {
  PyObject *gc = PyImport_ImportModule("gc");
  PyObject *garbage = gc ? PyObject_GetAttrString(gc, "garbage") : NULL;
  bool so = !garbage || (is(c, IS(gc.collecting), value(c, PyInterpreterState_Get(), IS(gc.collecting)) <= 1) &&
                         points(c, PyInterpreterState_Get(), IS(gc.garbage), garbage));
  Py_XDECREF(garbage);
  Py_XDECREF(gc);
  return so;
}

/* ---- what forks need ---------------------------------------------------------------------------------------------- */

/* Behind the lists of os.register_at_fork lies what the module _warnings shows; that one is hardly ever replaced. */
static bool fork_lists(check *c) {
  listed(c, IS(after_forkers_child));
  PyObject *mod = PyImport_ImportModule("_warnings"), *shown = mod ? PyObject_GetAttrString(mod, "_defaultaction") : NULL;
  bool so = !shown || points(c, PyInterpreterState_Get(), IS(warnings.default_action), shown);
  Py_XDECREF(shown);
  Py_XDECREF(mod);
  return so;
}

/* ---- all of it -------------------------------------------------------------------------------------------------- */

typedef enum { SOUND, NO_FORK_LISTS, NO_PREEMPTION, UNKNOWN_LAYOUT } verdict;

static verdict look(check *c) {
  c->now = PyThreadState_Get();
  c->fresh = PyThreadState_New(PyInterpreterState_Get());
  if (!c->fresh) return SOUND; /* no memory: others will say so */
  bool so = published(c) && fresh_state(c) && current_state(c) && frames(c) && runtime(c) && interpreter(c);
  PyThreadState_Clear(c->fresh);
  PyThreadState_Delete(c->fresh);
  if (!so || !breaker_looks_sound(c)) return UNKNOWN_LAYOUT;
  if (!pending_looks_sound(c) || !collector(c)) return NO_PREEMPTION;
  return fork_lists(c) ? SOUND : NO_FORK_LISTS;
}

#define BUILT_FOR "CPython " PY_VERSION
#define REBUILD \
  "build gmprt for this release (pip install --force-reinstall --no-cache-dir --no-binary gmprt gmprt)"

const char *selfcheck_built_for(void) { return BUILT_FOR; }

/* false: ImportError set. */
static bool conclude(check *c, const char **why) {
  static char text[320];
  verdict v = look(c);
  *why = NULL;
  if (PyErr_Occurred()) return false; /* a signal handler's */
  if (v == UNKNOWN_LAYOUT)
    PyErr_Format(PyExc_ImportError, "gmprt was built for " BUILT_FOR ", and in %s %s is not where it was: " REBUILD,
                 Py_GetVersion(), c->wrong);
  if (v == NO_PREEMPTION || v == NO_FORK_LISTS) {
    PyOS_snprintf(text, sizeof text, "off (gmprt was built for " BUILT_FOR ", and %s is not where it was: " REBUILD ")",
                  c->wrong);
    *why = text;
    fork_child_list_unknown();
  }
  if (v == NO_PREEMPTION) py_preempt_refuse(text);
  return v != UNKNOWN_LAYOUT;
}

/* At import, before the rest: another minor version has not even the same functions. */
bool selfcheck_version(void) {
  if (((unsigned long)Py_Version >> 16) == (PY_VERSION_HEX >> 16)) return true;
  PyErr_Format(PyExc_ImportError, "gmprt was built for Python %d.%d and this is %s", PY_MAJOR_VERSION, PY_MINOR_VERSION,
               Py_GetVersion());
  return false;
}

bool selfcheck(void) {
  const char *why;
  check c = {.by = 0};
  return conclude(&c, &why);
}

/* ---- for tests ---------------------------------------------------------------------------------------------------- */

/* [(struct, offset, name), ...] */
static PyObject *py_fields(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  (void)module;
  check c = {.list = PyList_New(0)};
  if (c.list) look(&c);
  return c.list;
}

/* Does what import would have done, had the fields of that struct from that offset on moved by so many bytes.
 * Returns what is off then, and why; None: nothing is. */
static PyObject *py_moved(PyObject *module, PyObject *args) {
  (void)module;
  int in, by;
  unsigned from;
  if (!PyArg_ParseTuple(args, "iIi", &in, &from, &by)) return NULL;
  check c = {.moved = (struct_no)in, .from = from, .by = by};
  const char *why;
  return conclude(&c, &why) ? Py_BuildValue("z", why) : NULL;
}

static PyObject *py_unsafe_build(PyObject *module, PyObject *args) {
  (void)module;
  const char *compiler;
  int shared, hex;
  if (!PyArg_ParseTuple(args, "spi", &compiler, &shared, &hex)) return NULL;
  return PyBool_FromLong(tls_addresses_kept(compiler, shared, hex));
}

PyMethodDef selfcheck_functions[] = {
    {"selfcheck_fields", py_fields, METH_NOARGS, NULL},
    {"selfcheck_moved", py_moved, METH_VARARGS, NULL},
    {"unsafe_build", py_unsafe_build, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL}};
