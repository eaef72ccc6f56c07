/* pythread.h - a thread that the interpreter starts, as a goroutine: pythread.c. */
#ifndef GMPRT_PY_HOST_PYTHREAD_H
#define GMPRT_PY_HOST_PYTHREAD_H

#include "py/host/goroutine.h"

extern bool pythreads; /* there has been one */
extern uint32_t pythreads_alive; /* GIL */

bool pythread_go(pthread_t *t, void *(*fn)(void *), void *arg, PyThreadState *ts);
PyObject *pythread_run(G *gp);
void pythread_left(M *m);
bool pythread_may_park(G *gp);
void pythread_ended(Goroutine *self);
void pythread_join(pthread_t t);
void pythread_afterfork(G *me);
_Noreturn void pythread_last(void);

#endif
