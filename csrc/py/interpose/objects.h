/* objects.h - which functions are replaced in which objects: objects.c. */
#ifndef GMPRT_PY_INTERPOSE_OBJECTS_H
#define GMPRT_PY_INTERPOSE_OBJECTS_H

#include "py/cpython/version.h"
#include "py/interpose/got.h"

/* Kinds of objects. */
enum {
  IN_INTERPRETER = 1, /* executable and libpython */
  IN_STDLIB = 2,      /* extension modules of the standard library */
  IN_EXTENSION = 4,   /* other extension modules */
  IN_TRUSTED = 8,     /* libraries in which goroutines may park */
};
/* ... in which a hook is put.  ALWAYS: GMPRT_INTERPOSE=0 leaves it in place: identity, masks, processes, the runtime's
 * descriptors. */
enum {
  PARK = IN_INTERPRETER | IN_STDLIB,
  PARK_FD = PARK | IN_TRUSTED,
  PYTHON = IN_INTERPRETER | IN_STDLIB | IN_EXTENSION,
  ALL = PYTHON | IN_TRUSTED,
  ALWAYS = 1 << 8,
};

bool interpose_knows(const char *path); /* an object that does not care on which thread it goes on */
bool interpose_install(hook *hooks, size_t n); /* false: exception set, and nothing has happened */
bool interpose_refresh(void); /* after objects may have been loaded; true: some were */
void interpose_remove(void);
bool interpose_parks(void); /* GMPRT_INTERPOSE is not 0, and the interpreter has a table */
bool interpose_possible(void); /* or nobody has asked for it */
const char *interpose_mode(void);
PyObject *interpose_report(void);

#endif
