/* lock.h - what `_thread.lock` is made of: lock.c. */
#ifndef GMPRT_PY_CPYTHON_LOCK_H
#define GMPRT_PY_CPYTHON_LOCK_H

#include <semaphore.h>

#include "py/cpython/version.h"

extern PyTypeObject *semaphore_lock; /* the type, if its locks are semaphores of the C library; else NULL */

bool lock_learn(PyTypeObject *type); /* false: exception set */
sem_t *lock_semaphore(PyObject *lock);
bool lock_try(PyObject *lock);    /* takes it if it is free */
void lock_taken(PyObject *lock);  /* its semaphore has been taken: noted as acquire() would */

#endif
