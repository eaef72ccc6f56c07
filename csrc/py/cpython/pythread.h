/* pythread.h - how the interpreter starts a thread: pythread.c. */
#ifndef GMPRT_PY_CPYTHON_PYTHREAD_H
#define GMPRT_PY_CPYTHON_PYTHREAD_H

#include "py/cpython/version.h"

bool pythread_learn(void); /* false: exception set, and it is not known */
bool pythread_probe(void *(*fn)(void *), void *arg); /* pthread_create was called to learn: refuse it */
PyThreadState *pythread_state(void *(*fn)(void *), void *arg); /* NULL: no thread that _thread starts */

#endif
