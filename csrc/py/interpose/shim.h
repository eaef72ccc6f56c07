/* shim.h - which interposed calls a cancel may end: shim.c, cancel.c; greenlets: greenlet.c. */
#ifndef GMPRT_PY_INTERPOSE_SHIM_H
#define GMPRT_PY_INTERPOSE_SHIM_H

#include "py/host/host.h"

/* shim.c */
bool shims_install(void);
void shims_remove(void);
void shim_has_lock(shim *s);

/* lock.c */
PyObject *lock_wait(Goroutine *self, PyObject *lock);

/* cancel.c */
bool cancel_notified(Goroutine *self, const shim *s);
bool cancel_compile(void);
bool cancel_find_files(void);
bool file_untouched(PyObject *buffered, PyObject *text);
bool cancel_learn(void);
bool cancel_ends(Goroutine *self);

/* greenlet.c */
bool greenlet_wire(void); /* the running goroutine uses greenlets; false: exception set */
void greenlet_found(PyObject *module, PyObject *type, newfunc from, newfunc to);

#endif
