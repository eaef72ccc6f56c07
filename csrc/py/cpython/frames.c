/* frames.c - evaluation loops on a stack, and where Python code stands. */
#include "py/cpython/tstate.h"

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

PyCodeObject *caller_position(PyThreadState *ts, int *instr) {
  _PyInterpreterFrame *f = TS_FRAME(ts);
  while (f && _PyFrame_IsIncomplete(f)) f = f->previous;
  if (!f) return NULL;
  *instr = _PyInterpreterFrame_LASTI(f) * (int)sizeof(_Py_CODEUNIT);
#ifdef HAVE_PREV_INSTR
  return f->f_code;
#else
  return _PyFrame_GetCode(f);
#endif
}
