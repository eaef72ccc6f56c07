/* args.h - arguments: args.c; time-outs and the ends of waits: wait.c. */
#ifndef GMPRT_PY_TYPES_ARGS_H
#define GMPRT_PY_TYPES_ARGS_H

#include "py/cpython/version.h"
#include "sched/g.h"

typedef struct patience {
  bool block;
  int64_t deadline; /* 0: none */
} patience;

/* args.c */
int timeout_arg(const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **timeout);
bool seconds_arg(const char *fn, const char *name, PyObject *o, const char *or_else, double *s);
bool integer_arg(const char *fn, const char *name, PyObject *o, int64_t lo, int64_t hi, int64_t *value);
bool callable_arg(const char *fn, const char *name, PyObject *o);
int patience_parse_strict(const char *fn, PyObject *timeout, patience *out);
int patience_parse(const char *fn, PyObject *timeout, patience *out); /* NULL or None: for ever */

/* wait.c */
int64_t seconds_to_ns(double s);
int64_t deadline_after(double s);
int wake_error(wake_t r);  /* 0: nothing wrong, try again; -1: exception set */
int many_error(wake_t r);
void raise_with_sent(size_t sent);

/* Functions of a table of methods. */
#define KW (METH_FASTCALL | METH_KEYWORDS)
#define FN(f) ((PyCFunction)(void (*)(void))(f))

#endif
