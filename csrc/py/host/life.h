/* life.h - the start and the end of a Python goroutine: go.c, life.c; what becomes of its failure: failures.c. */
#ifndef GMPRT_PY_HOST_LIFE_H
#define GMPRT_PY_HOST_LIFE_H

#include "py/host/goroutine.h"

/* go.c */
bool runtime_ensure(void); /* starts it on first use; false: exception set */
Goroutine *goroutine_new(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
Goroutine *goroutine_drop(Goroutine *self);   /* NULL; it will not be started */
void goroutine_start(Goroutine *self, G *gp);
Goroutine *goroutine_launch(Goroutine *self); /* NULL: exception set, and it is gone */
Goroutine *goroutine_go(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames); /* NULL: exception set */
void drop_call(Goroutine *self);

bool goroutine_go_pythread(void *(*fn)(void *), void *arg, PyThreadState *ts);

/* life.c */
host_after goroutine_run(G *gp);

/* failures.c */
bool worth_reporting(Goroutine *self);
void failed_link(Goroutine *self);
void failed_unlink(Goroutine *self);
void report_failure(Goroutine *self);
PyObject *py_failures(PyObject *module, PyObject *arg);
PyObject *py_asking(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
void failures_push(Goroutine *self);
void goroutine_finalize(PyObject *op);
PyObject *py_set_reporter(PyObject *module, PyObject *fn);
extern PyObject *reporter_hook;

#endif
