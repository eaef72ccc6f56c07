/* shim.h - which interposed calls a cancel may end. */
#ifndef GMPRT_SHIM_H
#define GMPRT_SHIM_H

#include "pyhost.h"

/* Kinds of blocking calls, as hooks and shims name them. */
typedef enum __attribute__((packed)) family { FAM_NONE, FAM_SLEEP, FAM_SEM, FAM_FD, FAM_CHILD } family;

/* What a file object lets through that holds data in C code between Python and the call that waits. */
typedef enum __attribute__((packed)) passage { PASS_NONE, PASS_UNTOUCHED, PASS_ALL } passage;

/* One call of a Python-callable function that may be cancelled, or must not be, on the stack of the goroutine. */
typedef struct shim {
  family family; /* FAM_NONE: of a file object, which waits in calls of its own below, or has others do so */
  passage passes;
  bool touched;        /* it has taken data that it would lose */
  uint8_t substituted; /* WAKE_OK, or why a hook made up a failure: wake_t */
  void *frame;        /* the interpreter frame that called: code that runs below has another one */
  PyObject *object;   /* whose method it is; borrowed */
  struct shim *outer;
} shim;

/* cancel.c */
bool cancel_ends(Goroutine *self);
bool cancel_notified(Goroutine *self, const shim *s);
bool file_untouched(PyObject *buffered, PyObject *text);
void cancel_find_files(void);
bool cancel_learn(void);

/* greenlet.c */
bool greenlet_wire(void); /* the running goroutine uses greenlets; false: exception set */
void greenlet_found(PyObject *module, PyObject *type, newfunc from, newfunc to);

/* Shims whatever is loaded and not yet shimmed; GIL held.  false: no memory, and the exception. */
bool shims_install(void);
void shims_remove(void);

#endif
