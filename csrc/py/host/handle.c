/* handle.c - a goroutine's handle as an object: what it has besides, traversed, freed. */
#include "py/host/life.h"
#include "py/host/scope.h"

PyTypeObject *Goroutine_Type;

/* For others: while it runs the code of its end it counts as ended. */
G *goroutine_g(Goroutine *self) { return self->done ? NULL : self->g; }

/* Its extras, made when first needed. */
extras *extras_raw(Goroutine *self) {
  if (!self->more) self->more = PyMem_RawCalloc(1, sizeof *self->more);
  return self->more;
}
extras *extras_of(Goroutine *self) {
  if (!extras_raw(self)) PyErr_NoMemory();
  return self->more;
}

int goroutine_clear(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  Py_CLEAR(self->context);
  Py_CLEAR(self->outcome);
  Py_CLEAR(self->created_by);
  if (self->more) {
    Py_CLEAR(self->more->name);
    Py_CLEAR(self->more->reason);
    Py_CLEAR(self->more->callbacks);
  }
  return 0;
}

int goroutine_traverse(PyObject *op, visitproc visit, void *arg) {
  Goroutine *self = (Goroutine *)op;
  Py_VISIT(Py_TYPE(op));
  Py_VISIT(self->fn);
  for (uint32_t i = 1; i <= self->nargs; i++) Py_VISIT(self->argv[i]);
  Py_VISIT(self->context);
  Py_VISIT(self->outcome);
  if (self->more) {
    Py_VISIT(self->more->reason);
    Py_VISIT(self->more->callbacks);
    Py_VISIT(self->more->group);
  }
  return 0;
}

static void goroutine_free(Goroutine *self) {
  PyTypeObject *type = Py_TYPE(self);
  if (self->weakrefs) PyObject_ClearWeakRefs((PyObject *)self);
  scopes_end(self);
  goroutine_clear((PyObject *)self);
  drop_call(self);
  PyMem_RawFree(self->more);
  PyObject_GC_Del(self);
  Py_DECREF(type);
}

/* May it be a link of a chain, each goroutine held by the one before?  Then its end may be a deep recursion. */
static inline bool chained(Goroutine *self) {
  return self->fn || self->context || self->more || (self->outcome && PyType_IS_GC(Py_TYPE(self->outcome)));
}

void goroutine_dealloc(PyObject *op) {
  Goroutine *self = (Goroutine *)op;
  if (PyObject_CallFinalizerFromDealloc(op) < 0) return;
  PyObject_GC_UnTrack(op);
  if (likely(!chained(self))) {
    goroutine_free(self);
    return;
  }
  Py_TRASHCAN_BEGIN(op, goroutine_dealloc)
  goroutine_free(self);
  Py_TRASHCAN_END
}
