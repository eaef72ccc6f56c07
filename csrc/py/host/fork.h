/* fork.h - forked children: fork.c; the handlers of forks: atfork.c. */
#ifndef GMPRT_PY_HOST_FORK_H
#define GMPRT_PY_HOST_FORK_H

#include "py/host/goroutine.h"

/* fork.c */
void fork_child_end(G *gp, PyObject *result);
void after_fork_child(void);
bool fork_handlers_register(void); /* false: exception set */

/* atfork.c */
void vfork_asked(void);     /* by this thread */
bool in_vfork_child(void); /* between vfork and exec: it shares our memory, and must not touch the runtime */
bool fork_in_progress(void); /* in the middle of a fork, or in a forked child that has not been told yet */
bool fork_holds(void); /* this thread has the locks that a fork takes */
void fork_over(void);
void fork_in_child(void);
bool fork_register(void);
void fork_asked(bool yes);      /* the fork that this thread is about to do is meant to go on in Python */
bool fork_is_asked(void);
void fork_done(bool in_parent); /* the runtime runs on there */
bool fork_just_done(void);      /* once: then it is forgotten.  (Versions ask before or behind their handlers in the parent.) */

#endif
