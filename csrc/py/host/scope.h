/* scope.h - what may cancel a goroutine, and where: scope.c.
 *
 * All fields are guarded by the GIL. */
#ifndef GMPRT_PY_HOST_SCOPE_H
#define GMPRT_PY_HOST_SCOPE_H

#include "py/host/goroutine.h"

/* A block of a goroutine that can be cancelled by itself, or in which no cancel from outside is delivered.  All zero: it
 * is not entered.  A part of a Python object, whose end leaves it. */
typedef struct scope {
  struct scope *outer;  /* of the same goroutine */
  Goroutine *owner;     /* in whose stack it is; borrowed: that leaves all at its end.  NULL: it is not entered */
  int64_t deadline;     /* nanotime(), 0: none */
  struct bell *bell;  /* that looks at the deadline, or NULL */
  PyObject *reason;     /* of scope_cancel */
  PyObject *exc;        /* the Cancelled that it has raised, until it is left */
  bool shields;
  bool cancelled;       /* scope_cancel was called */
  bool delivered;       /* Cancelled was raised for it; kept when it is left */
} scope;

int scope_enter(scope *s, Goroutine *self, int64_t deadline); /* -1: exception set */
bool scope_leave(scope *s, PyObject *exc);                    /* is exc the Cancelled of s? */
void scope_cancel(scope *s, PyObject *reason);
int scope_traverse(scope *s, visitproc visit, void *arg);
void scope_clear(scope *s);

void cancel_direct(Goroutine *self);   /* g.cancel(): the reason is with the goroutine */
bool cancel_due(Goroutine *self);      /* may a cancel end its wait? */
void knock_settle(Goroutine *self);    /* for waits that must not be disturbed for nothing */
int cancel_deliver(Goroutine *self);   /* -1: Cancelled is raised; 0: nothing is due */
void cancel_again(Goroutine *self, PyObject *exc); /* a Cancelled of its that was raised is pending again */
void scopes_afterfork(Goroutine *me);
void scopes_abandon(Goroutine *self);

/* It has returned: blocks that were entered by hand, or are held by generators, are its no more. */
static inline void scopes_end(Goroutine *self) {
  self->direct = false;
  if (unlikely(self->more && self->more->scopes)) scopes_abandon(self);
}

#endif
