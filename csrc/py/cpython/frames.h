/* frames.h - the frames of the interpreter, seen from C code below them. */
#ifndef GMPRT_PY_CPYTHON_FRAMES_H
#define GMPRT_PY_CPYTHON_FRAMES_H

#include "py/cpython/version.h"

/* The instruction that the interpreter executes for ts: equal as long as it is the same one. */
typedef struct position {
  void *frame;
  const void *instr;
} position;
static inline position ts_position(PyThreadState *ts) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
#ifdef HAVE_PREV_INSTR
  return (position){f, f ? f->prev_instr : NULL};
#else
  return (position){f, f ? f->instr_ptr : NULL};
#endif
}

/* The interpreter has not gone on from there: the call that it made there has not returned. */
static inline bool ts_stands_at(PyThreadState *ts, position at) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
  while (f && f != at.frame) f = f->previous;
#ifdef HAVE_PREV_INSTR
  return f && (const void *)f->prev_instr == at.instr;
#else
  return f && (const void *)f->instr_ptr == at.instr;
#endif
}

#ifndef HAVE_PREV_INSTR
static inline PyObject *frame_executable(const _PyInterpreterFrame *f) {
#ifdef HAVE_STACKREFS
  return PyStackRef_IsNull(f->f_executable) ? NULL : PyStackRef_AsPyObjectBorrow(f->f_executable);
#else
  return f->f_executable;
#endif
}
#endif

/* The code of a frame; only to be compared, for there are frames that have none. */
static inline const void *frame_code(const _PyInterpreterFrame *f) {
#ifdef HAVE_PREV_INSTR
  return f ? f->f_code : NULL;
#else
  return f ? frame_executable(f) : NULL;
#endif
}

/* An address in the C frame of the innermost evaluation loop, and of the one around it; may be of another stack. */
#ifdef HAVE_CFRAME
static inline const char *ts_inner_loop(PyThreadState *ts) { return (const char *)ts->cframe; }
static inline const char *outer_loop(const char *loop) { return (const char *)((const _PyCFrame *)loop)->previous; }
#else
static inline const char *loop_from(const _PyInterpreterFrame *f) {
  while (f && f->owner != ENTRY_FRAME) f = f->previous;
  return (const char *)f;
}
static inline const char *ts_inner_loop(PyThreadState *ts) { return loop_from(ts->current_frame); }
static inline const char *outer_loop(const char *loop) {
  return loop_from(((const _PyInterpreterFrame *)loop)->previous);
}
#endif

/* Machine code that the JIT has made of Python code, and that this loop runs now: it calls in the loop's place. */
typedef struct jitcode {
  uintptr_t at;
  size_t size; /* 0: none */
} jitcode;
#ifdef HAVE_EXECUTORS
jitcode loop_jitcode(PyThreadState *ts, const char *loop);
#else
static inline jitcode loop_jitcode(PyThreadState *ts, const char *loop) {
  (void)ts, (void)loop;
  return (jitcode){0, 0};
}
#endif

/* From the innermost one up. */
typedef const _PyInterpreterFrame *pyframe;
static inline pyframe frame_first(PyThreadState *ts) { return TS_FRAME(ts); }
static inline pyframe frame_above(pyframe f) { return f->previous; }
static inline bool frame_incomplete(pyframe f) { return _PyFrame_IsIncomplete((_PyInterpreterFrame *)f); }

/* Of one that is complete: its code, and the offset in that. */
static inline PyCodeObject *frame_code_object(pyframe f) {
#ifdef HAVE_PREV_INSTR
  return f->f_code;
#else
  return _PyFrame_GetCode((_PyInterpreterFrame *)f);
#endif
}
static inline int frame_instr(pyframe f) {
  _PyInterpreterFrame *asked = (_PyInterpreterFrame *)f; /* the interpreter's macros do not promise to leave it alone */
  return _PyInterpreterFrame_LASTI(asked) * (int)sizeof(_Py_CODEUNIT);
}

/* Where the caller's Python code is now: a borrowed code object, NULL if there is none. */
PyCodeObject *caller_position(PyThreadState *ts, int *instr);
bool frames_private(PyThreadState *ts, const char *lo, const char *hi);
void *frames_hide(PyThreadState *ts);
void frames_show(PyThreadState *ts, void *hidden);
void frames_cut(PyThreadState *ts, const char *lo, const char *hi);
const char *ts_loop(PyThreadState *ts, const char *lo, const char *hi);

#endif
