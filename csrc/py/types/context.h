/* context.h - contexts: context.c. */
#ifndef GMPRT_PY_TYPES_CONTEXT_H
#define GMPRT_PY_TYPES_CONTEXT_H

#include "py/host/scope.h"
#include "py/types/chan.h"

typedef struct Context Context;

/* A scope that ends with a context. */
typedef struct binding {
  scope *s;
  Context *core;  /* that it follows, or NULL: it is in no list.  Borrowed: the scope's object has the context. */
  struct binding *next, **link;
} binding;

PyObject *context_scope(PyObject *ctx, PyObject *ignored); /* cancelscope.c */

extern PyTypeObject *Context_Type, *CancelContext_Type;
extern PyType_Spec context_spec, cancelcontext_spec;
extern PyMethodDef context_functions[];

void context_bind(Context *ctx, binding *b); /* b->s is entered */
void context_unbind(binding *b);
int64_t context_deadline(const Context *ctx);
PyObject *context_raise(Context *ctx, PyObject *cancelled); /* NULL: what err() says is raised */
bool context_over(Chan *done);                              /* false: exception set */

#endif
