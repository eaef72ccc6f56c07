/* field.h - a field of one of the interpreter's structs, and a look at it: for selfcheck.c. */
#ifndef GMPRT_PY_CPYTHON_FIELD_H
#define GMPRT_PY_CPYTHON_FIELD_H

#include "base/base.h"
#include "py/cpython/version.h"

typedef enum { STATE, INTERP, RUNTIME, GIL, FRAME, FRAME_OBJECT, CHUNK } struct_no;

typedef struct field {
  struct_no in;
  uint32_t offset, size;
  const char *name;
} field;

#define F(in, type, member) \
  (field) { in, offsetof(type, member), sizeof(((type *)0)->member), #type "." #member }
#define TS(member) F(STATE, PyThreadState, member)
#define IS(member) F(INTERP, PyInterpreterState, member)
#define RT(member) F(RUNTIME, _PyRuntimeState, member)
#define FR(member) F(FRAME, _PyInterpreterFrame, member)

typedef struct check {
  /* a test's: in that struct, fields at `from` and behind lie `by` bytes further on */
  struct_no moved;
  uint32_t from;
  int by;
  PyObject *list; /* gets the fields, or NULL */
  const char *wrong;
  PyThreadState *now, *fresh;
} check;

static inline uint32_t offset(const check *c, field f) {
  return f.in == c->moved && f.offset >= c->from ? f.offset + (uint32_t)c->by : f.offset;
}

/* A field that is used, and guarded by one behind it. */
static inline void listed(check *c, field f) {
  if (!c->list) return;
  PyObject *row = Py_BuildValue("iIs", (int)f.in, (unsigned)f.offset, f.name);
  if (!row || PyList_Append(c->list, row) < 0) PyErr_Clear();
  Py_XDECREF(row);
}

static inline uint64_t value(check *c, const void *base, field f) {
  uint64_t v = 0;
  memcpy(&v, (const char *)base + offset(c, f), f.size <= sizeof v ? f.size : sizeof v);
  return v;
}

static inline bool is(check *c, field f, bool so) {
  listed(c, f);
  if (!so && !c->wrong) c->wrong = f.name;
  return so;
}

static inline bool holds(check *c, const void *base, field f, uint64_t want) {
  return is(c, f, value(c, base, f) == want);
}
static inline bool points(check *c, const void *base, field f, const void *want) {
  return holds(c, base, f, (uint64_t)(uintptr_t)want);
}
/* The address of a field that is a struct. */
static inline const char *inside(check *c, const void *base, field f) {
  listed(c, f);
  return (const char *)base + offset(c, f);
}

#endif
