/* lastwords.c - where the Python code of a state stands, told from the handler of a signal: the process is about to die.
 *
 * The interpreter's own (_Py_DumpTraceback) is private to it from 3.13 on.  As in that one, nothing is allocated and no
 * lock is taken; what is read may be half-made, and a fault meanwhile, with the signal blocked, ends the process. */
#include <stdio.h>
#include <unistd.h>

#include "py/cpython/frames.h"
#include "py/cpython/lastwords.h"

enum { INNERMOST = 50, OUTERMOST = 50 }; /* Go's */

typedef struct text {
  char at[512];
  size_t n;
} text;

static void put(text *t, const char *s) {
  for (; *s && t->n < sizeof t->at - 1; s++) t->at[t->n++] = *s;
}

static void put_name(text *t, PyObject *name) {
  if (!name || !PyUnicode_Check(name)) {
    put(t, "???");
    return;
  }
  Py_ssize_t n = PyUnicode_GET_LENGTH(name);
  for (Py_ssize_t i = 0; i < n && t->n < sizeof t->at / 2; i++) {
    Py_UCS4 c = PyUnicode_READ_CHAR(name, i);
    t->at[t->n++] = c >= ' ' && c < 127 ? (char)c : '?';
  }
}

static void say(text *t) {
  put(t, "\n");
  if (write(2, t->at, t->n) < 0) return;
}

static void tell(pyframe f) {
  text t = {.n = 0};
  char line[32];
  PyCodeObject *code = frame_code_object(f);
  snprintf(line, sizeof line, "\", line %d in ", PyCode_Addr2Line(code, frame_instr(f)));
  put(&t, "  File \"");
  put_name(&t, code->co_filename);
  put(&t, line);
  put_name(&t, code->co_qualname);
  say(&t);
}

static pyframe complete(pyframe f) {
  while (f && frame_incomplete(f)) f = frame_above(f);
  return f;
}

void frames_tell(PyThreadState *ts) {
  unsigned n = 0, i = 0;
  for (pyframe f = complete(frame_first(ts)); f; f = complete(frame_above(f))) n++;
  for (pyframe f = complete(frame_first(ts)); f; f = complete(frame_above(f)), i++) {
    if (i < INNERMOST || i + OUTERMOST >= n) {
      tell(f);
    } else if (i == INNERMOST) {
      text t = {.n = 0};
      char left[64];
      snprintf(left, sizeof left, "  ... %u more ...", n - INNERMOST - OUTERMOST);
      put(&t, left);
      say(&t);
    }
  }
}
