/* frames.c - evaluation loops on a stack, and where Python code stands. */
#include "py/cpython/frames.h"
#include "py/cpython/tstate.h"

#ifdef HAVE_CFRAME
#define LAST_FRAME(ts) NULL
#else
#define LAST_FRAME(ts) BASE_FRAME(ts)
#endif

#ifdef HAVE_CFRAME
/* An address in the C frame of the innermost evaluation loop on the stack [lo, hi), if it is the only one there;
 * else NULL. */
const char *ts_loop(PyThreadState *ts, const char *lo, const char *hi) {
  const char *loop = (const char *)ts->cframe, *outer = (const char *)ts->cframe->previous;
  bool only = loop >= lo && loop < hi && !(outer >= lo && outer < hi);
  return only ? loop : NULL;
}
#else
/* Each loop has a frame of its own on the C stack, before those that it runs. */
const char *ts_loop(PyThreadState *ts, const char *lo, const char *hi) {
  int looks = 16; /* beyond, it is cheaper to look at the whole stack */
  const char *found = NULL;
  for (const _PyInterpreterFrame *f = ts->current_frame; f; f = f->previous) {
    if (looks-- == 0) return NULL;
    if (f->owner != ENTRY_FRAME) continue;
    const char *at = (const char *)f;
    if (at < lo || at >= hi) break;
    if (found) return NULL;
    found = at;
  }
  return found;
}
#endif

#ifdef HAVE_EXECUTORS
/* Executors say of themselves how large they are without their exits: one of another layout is not looked into. */
static jitcode code_of(const PyObject *executor) {
  const _PyExecutorObject *e = (const _PyExecutorObject *)executor;
  if (!e || Py_TYPE(executor)->tp_basicsize != offsetof(_PyExecutorObject, exits)) return (jitcode){0, 0};
  return (jitcode){(uintptr_t)e->jit_code, e->jit_size};
}

/* The state knows what the innermost loop runs.  A loop that is entered from there keeps it in its own frame, and gives
 * it back at its end.  (The interpreter's list of executors has only those that are still valid: what a goroutine is
 * parked in may have been taken out meanwhile.) */
jitcode loop_jitcode(PyThreadState *ts, const char *loop) {
  const PyObject *runs = ts->current_executor;
  for (const _PyInterpreterFrame *f = ts->current_frame; f; f = f->previous) {
    if (f->owner != ENTRY_FRAME) continue;
    if ((const char *)f == loop) return code_of(runs);
    runs = PyStackRef_IsNull(f->localsplus[0]) ? NULL : PyStackRef_AsPyObjectBorrow(f->localsplus[0]);
  }
  return (jitcode){0, 0};
}
#endif

/* In a forked child, for a state that ran on the stack [lo, hi) and was lent by a thread that is not there: that one's
 * evaluation loops end here.  Their C frames are on a stack that the C library gives to the next thread; whoever went
 * on from the goroutine's frames to its callers, as tracebacks do, would read what that one has put there.  Now, it is
 * still as it was. */
void frames_cut(PyThreadState *ts, const char *lo, const char *hi) {
#ifdef HAVE_CFRAME
  _PyCFrame **loop = &ts->cframe;
  while ((const char *)*loop >= lo && (const char *)*loop < hi) loop = &(*loop)->previous;
  const _PyInterpreterFrame *gone = (*loop)->current_frame;
  *loop = &ts->root_cframe;
  ts->root_cframe.current_frame = NULL;
  _PyInterpreterFrame **f = &ts->cframe->current_frame;
  while (*f && *f != gone) f = &(*f)->previous;
  *f = NULL;
#else
  _PyInterpreterFrame **end = &ts->current_frame;
  for (_PyInterpreterFrame *f = ts->current_frame; f; f = f->previous) {
    if (f->owner != ENTRY_FRAME) continue;
    if ((const char *)f < lo || (const char *)f >= hi) break;
    end = &f->previous;
  }
  *end = BASE_FRAME(ts);
#endif
}

/* Of a state that is not current: nothing but itself refers to its frames, and they lie in [lo, hi) or, a loop's own, on
 * the C stack below.  (A frame's object that only the frame holds cannot be found by anybody.) */
bool frames_private(PyThreadState *ts, const char *lo, const char *hi) {
  if (ts->exc_info != &ts->exc_state) return false; /* a generator's */
  for (const _PyInterpreterFrame *f = TS_FRAME(ts); f && f != LAST_FRAME(ts); f = f->previous) {
    if ((const char *)f < lo || (const char *)f >= hi) return false;
#ifdef HAVE_ENTRY_FRAMES
    if (f->owner == ENTRY_FRAME) continue;
#endif
    if (f->owner != FRAME_OWNED_BY_THREAD) return false;
    if (f->frame_obj && Py_REFCNT(f->frame_obj) > 1) return false;
  }
  return true;
}

/* Whoever looks at the state, from whichever thread, finds no frames; what is returned brings them back. */
void *frames_hide(PyThreadState *ts) {
#ifdef HAVE_CFRAME
  void *hidden = ts->cframe;
  ts->cframe = &ts->root_cframe;
#else
  void *hidden = ts->current_frame;
  ts->current_frame = LAST_FRAME(ts);
#endif
  return hidden;
}
void frames_show(PyThreadState *ts, void *hidden) {
#ifdef HAVE_CFRAME
  ts->cframe = hidden;
#else
  ts->current_frame = hidden;
#endif
}

PyCodeObject *caller_position(PyThreadState *ts, int *instr) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
  while (f && _PyFrame_IsIncomplete(f)) f = f->previous;
  if (!f) return NULL;
  *instr = frame_instr(f);
  return frame_code_object(f);
}
